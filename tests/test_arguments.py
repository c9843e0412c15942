"""Arguments of another kind than a signature says are refused, by name."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

import jaxnn as nn
from jaxnn._core.arguments import checked, kind_of
from jaxnn._core.types import PerAxis, Scalar, SpatialShape
from tests.test_completeness import PUBLIC, from_jax


def annotated(annotation):
    """The public functions and those of their parameters that have an annotation."""
    return [
        (name, p.name)
        for name, value in PUBLIC.items()
        if inspect.isfunction(value) and not from_jax(value)
        for p in inspect.signature(value).parameters.values()
        if p.annotation is annotation
    ]


def test_every_flag_is_true_or_false():
    flags = annotated(bool)
    assert len(flags) > 60
    for function, flag in flags:
        for bad in ("False", "no", None, 0, 1, jnp.array(True)):
            with pytest.raises(TypeError, match=f": {flag} is .* expected True or False"):
                PUBLIC[function](**{flag: bad})


def test_every_floating_number_is_finite():
    numbers = annotated(float)
    assert len(numbers) > 30
    for function, number in numbers:
        for bad in (np.nan, np.inf, -np.inf, np.float32("nan"), jnp.array(jnp.nan)):
            with pytest.raises(ValueError, match=f": {number} is .* expected a finite number"):
                PUBLIC[function](**{number: bad})
        for bad in ("abc", None, True, jnp.ones(2), 1j, nn.dense):
            with pytest.raises(TypeError, match=f": {number} is .* expected a finite number"):
                PUBLIC[function](**{number: bad})


class Array:
    """What JAX takes for an array, as tensors of others."""

    def __array__(self, dtype=None, copy=None):
        """Its numbers."""
        return np.ones(2, dtype)


RAGGED = [[1, 2], [3]]
KINDS = {
    "integer": (int, [3, np.int8(3)], [True, 1.0, jnp.int32(3), None], "an integer"),
    "string": (str, ["a"], [1, b"a"], "a string"),
    "one of": (Literal["a", "b"], ["a"], ["c", 1, None], "'a' or 'b'"),
    "one of, or none": (Literal["a", "b"] | None, [None], ["c"], "'a', 'b' or None"),
    "integers": (
        PerAxis,
        [1, (1, 2), [3], range(2), ()],
        ["12", (1, 2.0), (None,), np.ones(2)],
        "an integer or a sequence of integers",
    ),
    "pair": (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), (1, "a")], "a pair of integers"),
    "words of its own": (SpatialShape, [(3,)], [3, "a"], "an integer for each spatial axis: (3,)"),
    "scalar": (Scalar, [1, 2.5, np.float32(1), jnp.ones(())], [jnp.ones(2), np.nan], "a finite"),
    "array": (
        ArrayLike,
        [1, 2j, True, [1.0, 2], (1,), [], np.ones(2, np.int8), jnp.ones(2, jnp.bfloat16), Array()],
        [None, "a", {}, object(), RAGGED, ["a"], np.array(["a"]), jax.random.key(0), len, Array],
        "a number or an array of numbers",
    ),
    "dtype": (
        DTypeLike | None,
        ["float32", jnp.bfloat16, np.dtype("int8"), None, float],
        ["floaty", 3, np.ones(2), object],
        "a dtype or None",
    ),
    "function": (
        Callable[[Any], Any],
        [len, float, lambda x: x],
        [None, nn.dense(3), nn.dense],
        "a function",
    ),
    "initializer": (
        Initializer,
        [nn.initializers.zeros, nn.initializers.lecun_normal(), nn.initializers.dirac()],
        [None, 1.0, nn.initializers.lecun_normal, nn.initializers.dirac, nn.dense],
        "an initializer, (key, shape, dtype) -> array",
    ),
    "several": (Sequence[str], [["a"], ()], ["a", [1]], "a sequence of strings"),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_annotation_says_what_is_accepted(name):
    annotation, good, bad, expected = KINDS[name]
    kind = kind_of(annotation)
    assert [value for value in good if not kind.accepts(value)] == []
    assert [value for value in bad if kind.accepts(value)] == []
    assert kind.expected.startswith(expected)


@pytest.mark.parametrize("annotation", [Any, nn.typing.LayerLike, nn.typing.Data, list[Any] | int])
def test_of_what_has_a_check_of_its_own_nothing_is_known(annotation):
    assert kind_of(annotation) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.dense(10**30), "dense: features is 10+, expected an integer of fewer bits"),
        (lambda: nn.functional.flatten(2**40), "flatten: x is 1099511627776, .* of fewer bits"),
        (lambda: nn.losses.dice_loss(1, 1, reduction="a"), "reduction is 'a', expected 'mean', "),
        (lambda: nn.rms_norm(epsilon=jnp.array(jnp.nan)), r"rms_norm: epsilon is Array\(nan"),
    ],
)
def test_numbers_and_words_out_of_range_are_value_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.dense("a"), "dense: features is 'a', expected an integer"),
        (lambda: nn.losses.ignoring(nn.dense, 0), r"loss is dense, .*: call it, dense\(\.\.\.\)"),
        (lambda: nn.functional.linear(None, 1, 1), "linear: x is None, expected a number or an"),
        (lambda: nn.functional.combine_masks(True, "a"), r"combine_masks: masks\[1\] is 'a'"),
        (lambda: nn.dense(3, bias_init=None), "dense: bias_init is None, expected an initializer"),
        (lambda: nn.dense(3, bias_init=lambda key: key), "bias_init is <lambda>, expected an init"),
        (lambda: nn.dense(3, bias_init=nn.dense(3)), r"bias_init is dense\(3\), expected an init"),
    ],
)
def test_values_of_another_kind_are_type_errors(call, message):
    with pytest.raises(TypeError, match=message):
        call()


class Column:
    """Numbers of another library, as a column of a table has them."""

    def __array__(self, dtype=None, copy=None):
        return np.array([0.5, 2.0], dtype)


@pytest.mark.parametrize("weights", [[0.5, 2.0], (0.5, 2.0), [np.float32(0.5), 2], Column()])
def test_what_is_meant_as_an_array_is_one_before_the_function_sees_it(weights):
    loss = nn.losses.sigmoid_binary_cross_entropy
    logits, labels = [[0.0, 1.0]], [[1, 0]]
    values = loss(logits, labels, pos_weight=weights, class_weights=weights)
    right = [[0.5 * 0.5 * np.log(2), 2.0 * np.log1p(np.e)]]
    np.testing.assert_allclose(values, right, rtol=1e-6)
    traced = jax.jit(lambda a: loss(logits, labels, pos_weight=[a, 2.0], class_weights=weights))
    np.testing.assert_allclose(traced(0.5), right, rtol=1e-6)
    with pytest.raises(ValueError, match=r"pos_weight is .* expected a finite number >= 0"):
        jax.jit(lambda x: loss(x, labels, pos_weight=[-1.0, 2.0]))(jnp.zeros((1, 2)))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_that_would_become_others_are_refused(dtype):
    wide = np.array([0, 2**32 + 1], dtype)
    scores = jnp.zeros((2, 3))
    calls = {
        "labels": lambda: nn.losses.softmax_cross_entropy(scores, wide),
        "ids": lambda: nn.functional.embed(wide, scores),
        "tokens": lambda: nn.functional.token_log_probs(scores, wide),
    }
    if not jax.config.jax_enable_x64:
        for name, call in calls.items():
            with pytest.raises(ValueError, match=rf": {name} has the integer 4294967297 at \(1,\)"):
                call()
    narrow = nn.losses.softmax_cross_entropy(scores, wide % 3)
    np.testing.assert_allclose(narrow, np.full(2, np.log(3)), rtol=1e-6)


def test_a_mask_of_numpy_is_not_lost():
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    with pytest.raises(TypeError, match="squared_error: targets is a masked array"):
        nn.losses.squared_error(jnp.ones(2), masked)


def test_every_public_function_with_such_annotations_is_checked():
    unchecked = {
        name
        for name, value in PUBLIC.items()
        if inspect.isfunction(value) and not from_jax(value) and not hasattr(value, "__wrapped__")
    }
    assert {
        (name, p.name)
        for name in unchecked
        for p in inspect.signature(PUBLIC[name]).parameters.values()
        if kind_of(p.annotation) is not None
    } == set()


NORMS = ["layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm", "unit_norm"]


@pytest.mark.parametrize("norm", NORMS)
def test_epsilon_is_not_negative(norm):
    x = jnp.ones((2, 4, 32))
    arrays = (x, jnp.ones(32), jnp.ones(32)) if norm == "batch_norm" else (x,)
    groups = {"num_groups": 2} if norm == "group_norm" else {}
    for call, given in ((getattr(nn, norm), ()), (getattr(nn.functional, norm), arrays)):
        with pytest.raises(ValueError, match=f"{norm}: epsilon is -1e-05, expected a finite"):
            call(*given, **groups, epsilon=-1e-5)


@checked
def scaled(x, number: float = 1.0, *, flag: bool = False, either: float | None = None):
    """What it was called with."""
    return x, number, flag, either


@pytest.mark.parametrize("number", [2, 2.5, np.float32(2), np.int8(2), jnp.ones(()), np.ones(())])
def test_any_real_number_will_do(number):
    assert scaled(0, number, either=number) == (0, number, False, number)


def test_traced_numbers_pass():
    assert jax.jit(lambda number: scaled(0, number)[1])(3.0) == 3


def test_booleans_of_numpy_are_booleans():
    assert scaled(0, flag=np.bool_(True))[2]


def test_none_passes_where_it_is_annotated():
    assert scaled(0, either=None)[3] is None
    with pytest.raises(
        TypeError, match="scaled: either is 'abc', expected a finite number or None"
    ):
        scaled(0, either="abc")


def test_pythons_own_errors_stay():
    with pytest.raises(TypeError, match="unexpected keyword argument 'flags'"):
        scaled(0, flags=True)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        scaled()


def test_flags_of_apply_are_true_or_false():
    x = jnp.ones((2, 3))
    layer = nn.serial(nn.dense(3), nn.dropout(0.5))
    params, state = layer.init(jax.random.key(0), x)
    with pytest.raises(TypeError, match="train is 'False', expected True or False"):
        layer.apply(params, state, x, train="False")
    ids = nn.embedding(4, 3)
    params, state = ids.init(jax.random.key(0), jnp.array([0]))
    with pytest.raises(TypeError, match=r"embedding\(4, 3\): attend is 'no', expected True or"):
        ids.apply(params, state, x, attend="no")


BAD_NUMBERS = {
    "infinite_strength": (lambda: nn.regularizers.l1(np.inf), "l1: strength is inf, .* finite"),
    "nan_scale": (
        lambda: nn.functional.dot_product_attention(*[jnp.ones((1, 2, 1, 2))] * 3, scale=np.nan),
        "dot_product_attention: scale is nan, expected a finite number",
    ),
    "dice_weights": (
        lambda: nn.losses.dice_loss(*[jnp.ones((2, 3, 2))] * 2, class_weights=jnp.array([1, -1])),
        r"dice_loss: class_weights is \[ 1 -1\], expected a finite number >= 0",
    ),
    "dice_smooth": (
        lambda: nn.losses.dice_loss(*[jnp.ones((2, 3, 2))] * 2, smooth=np.nan),
        "dice_loss: smooth is nan",
    ),
    "pos_weight": (
        lambda: nn.losses.sigmoid_binary_cross_entropy(
            jnp.ones(2), jnp.ones(2), pos_weight=jnp.array([1.0, np.inf])
        ),
        "sigmoid_binary_cross_entropy: pos_weight is .* finite number >= 0",
    ),
    "temperature": (
        lambda: nn.losses.ntxent(jnp.ones((2, 3)), jnp.array([0, 1]), 0.0),
        "ntxent: temperature is 0.0",
    ),
    "norm_degree": (
        lambda: nn.losses.triplet_margin_loss(*[jnp.ones((2, 3))] * 3, norm_degree=0),
        "triplet_margin_loss: norm_degree is 0",
    ),
    "margin": (
        lambda: nn.losses.triplet_margin_loss(*[jnp.ones((2, 3))] * 3, margin=np.nan),
        "triplet_margin_loss: margin is nan, expected a finite number",
    ),
    "poly_epsilon": (
        lambda: nn.losses.poly_loss_cross_entropy(
            jnp.ones((2, 3)), jnp.array([0, 1]), epsilon=np.inf
        ),
        "poly_loss_cross_entropy: epsilon is inf",
    ),
    "response_constant": (lambda: nn.local_response_norm(k=0.0), "local_response_norm: k is 0.0"),
}


@pytest.mark.parametrize("name", BAD_NUMBERS)
def test_numbers_out_of_range_are_refused(name):
    call, message = BAD_NUMBERS[name]
    with pytest.raises(ValueError, match=message):
        call()
