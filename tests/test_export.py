"""`nn.export`: programs that run without jaxnn."""

import string
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._files.deployment import _plain
from tests.compiling import fast_jit
from tests.parameters import quick_first
from tests.table import LAYERS, draw_layer

X = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
MODEL = nn.serial(nn.dense(4), nn.batch_norm(), nn.relu, nn.dense(2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.jax"


def read(path):
    return jax.export.deserialize(bytearray(path.read_bytes()))


def drawn(key):
    params, state = MODEL.init(key, X)
    return params, jax.tree.map(lambda leaf: leaf + 0.5, state)


def test_program_has_params_and_state_in_it(path, key):
    params, state = drawn(key)
    nn.export(path, MODEL, params, X[:1], state=state, symbolic="batch, ...", vjp_order=1)
    program = read(path)
    assert [str(aval) for aval in program.in_avals] == ["float32[batch,3]"]
    assert program.platforms == ("cpu", "cuda", "tpu")
    expected = MODEL.apply(params, state, X)[0]
    np.testing.assert_allclose(program.call(X), expected, rtol=1e-6)

    def total(f):
        return jax.grad(lambda x: jnp.sum(f(x) ** 2))(X)

    own = total(lambda x: MODEL.apply(params, state, x)[0])
    np.testing.assert_allclose(total(program.call), own, rtol=1e-5)


def test_program_without_params_takes_others(path, key):
    params, state = drawn(key)
    shapes = jax.eval_shape(lambda: (params, state))
    nn.export(path, MODEL, shapes[0], X, state=shapes[1], with_params=False, platforms=["cpu"])
    other = jax.tree.map(lambda leaf: 2 * leaf, params)
    expected = MODEL.apply(other, state, X)[0]
    np.testing.assert_allclose(read(path).call(other, state, X), expected, rtol=1e-6)


def test_training_step_speaks_in_dicts(path, key):
    """Leaves of a named tuple lie in the order of its fields, those of a dict in the alphabet's."""
    optimizer = nn.optimizers.adam(0.1)

    def loss_fn(params, state, batch, key):
        y, state = MODEL.apply(params, state, batch, key=key, train=True)
        return jnp.mean(y**2), (state, {})

    step = nn.train_step(loss_fn, optimizer)
    start = nn.train_state(*drawn(key), optimizer, jax.random.key(1))
    nn.export(path, lambda arguments: step(*arguments), {}, (start, X), platforms=["cpu"])
    program = read(path)
    given = start._asdict() | {"opt_state": (start.opt_state[0]._asdict(), {})}
    now, metrics = program.call((given, X))
    expected, own = jax.jit(step)(start, X)
    assert now.keys() == set(start._fields)
    np.testing.assert_allclose(metrics["loss"], own["loss"], rtol=1e-6)
    mu = now["opt_state"][0]["mu"]
    for a, b in zip(jax.tree.leaves(mu), jax.tree.leaves(expected.opt_state[0].mu), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    with jax.debug_key_reuse(False):  # which takes the key for one that the first call has used
        assert int(program.call((now, X))[0]["step"]) == 2


def test_containers_become_those_of_the_standard_library():
    Pair = nn.optimizers.adam(0.1).init({"w": 1.0})[0].__class__  # a named tuple
    tree = {10: [Pair(1, {"w": 2}, (3, None))], 2: ()}
    assert _plain(tree) == {"10": [{"count": 1, "mu": {"w": 2}, "nu": (3, None)}], "2": ()}


def test_symbolic_axes_by_array(path):
    def weighted(inputs):
        return inputs["w"] * jnp.sum(inputs["x"], axis=1)

    example = {"w": X[:, 0], "x": X}
    nn.export(path, weighted, {}, example, symbolic={"w": None, "x": "_, time"}, platforms=["cpu"])
    given = {"w": X[:, 0], "x": np.ones((5, 7), np.float32)}
    np.testing.assert_allclose(read(path).call(given), X[:, 0] * 7, rtol=1e-6)


WRONG = [
    ({"symbolic": "batch"}, ValueError, "has 1 axes, expected 2 for an array of shape"),
    ({"symbolic": "2 batch, ..."}, ValueError, "symbolic is '2 batch, ...'.*syntax error"),
    ({"symbolic": {"a": "batch, 3"}}, ValueError, "expected the shapes of x"),
    ({"platforms": ["metal"]}, TypeError, "platforms"),
    ({"platforms": []}, ValueError, "platforms is empty"),
    ({"vjp_order": -1}, ValueError, "vjp_order is -1"),
    ({"params": {"kernel": jax.ShapeDtypeStruct((3, 2), np.float32)}}, TypeError, "'kernel'"),
    ({"params": {"kernel": np.broadcast_to(np.float32(0), (2**15, 2**15))}}, ValueError, "bytes"),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG)
def test_wrong_arguments_leave_the_file_as_it_was(path, wrong, kind, message):
    path.write_text("old")
    arguments = {"params": {"kernel": np.ones((3, 2), np.float32)}} | wrong
    with pytest.raises(kind, match=f"^export: .*{message}"):
        nn.export(path, nn.dense(2, use_bias=False), x=X, **arguments)
    assert [file.read_text() for file in path.parent.iterdir()] == ["old"]


def test_missing_package_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match="pip install flatbuffers"):
        nn.export(path, nn.relu, {}, X)


# Every layer, with symbolic axes

# All axes but the last are symbolic, except where the parameters or the arguments fix them.
SYMBOLIC = {
    "dense_general": ("_, a, _",),
    "dense_general_without_bias": ("a, _, _",),
    "einsum_shared": ("a, _, _",),
    "layer_norm_axes": ("a, _, _",),
    "instance_norm_axis_1": ("a, _, _",),
    "conv_options": ("a, b, 2*c + 1, _", "c >= 2"),
    "conv_transpose_options": ("a, _, _",),
    "depthwise_conv_options": ("a, b, _", "b >= 3"),
    "max_pool": ("a, 2*b, c, _", "c >= 2"),
    "adaptive_max_pool": ("a, _, c, _",),
    "adaptive_avg_pool": ("a, _, 3*c, _",),
    "fold": ("a, _, _, _",),
    "resize3__4__method-cubic__antialias-True": ("a, _, _, _",),
    "pixel_unshuffle2__2": ("a, 2*b, 2*c, _",),
    "learned_positions": ("a, b, _", "b <= 5"),
    "recurrent_conv_lstm": ("a, b, _, _",),
    "autoregressive": ("a, b, _", "b <= 3"),
}
FAST = (
    "conv_transpose",
    "separable_conv",
    "avg_pool",
    "batch_norm",
    "attention_norm_alibi_window",
    "mixture_of_experts_capacity",
    "recurrent_lstm",
)


def symbolic(row):
    """The shapes of the first input of a row, and constraints."""
    rank = len(row.shapes[0])
    free = rank if row.vocabulary else rank - 1
    names = (*string.ascii_lowercase[:free], "_")[:rank]
    spec, *constraints = SYMBOLIC.get(row.name, (", ".join(names),))
    return {"symbolic": spec, "constraints": constraints}


def all_of_it(row):
    """Output, next state and gradients of a row in training, as a function of arrays."""
    layer = row.make()

    def loss(params, x, state):
        y, state = layer.apply(params, state, x, key=jax.random.key(1), train=True)
        squares = (jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(y))
        return sum(squares), (y, state)

    return jax.value_and_grad(loss, row.differentiable, has_aux=True)


def close(a, b):
    """Equal to rounding, of which small gradients have that of the large numbers they come from."""
    largest = max(np.max(np.abs(leaf), initial=1) for leaf in jax.tree.leaves(b))
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6 * largest)


@quick_first(2)
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.name, marks=[] if row.name in FAST else [pytest.mark.slow])
        for row in LAYERS
    ],
)
def test_training_with_symbolic_axes_for_three_platforms(row):
    _, params, state, x = draw_layer(row)
    axes = symbolic(row)
    specs = jax.export.symbolic_args_specs(x, axes["symbolic"], axes["constraints"])
    shapes = jax.eval_shape(lambda: (params, state))
    function = all_of_it(row)
    exported = jax.export.export(jax.jit(function), platforms=["cpu", "cuda", "tpu"])
    close(
        exported(shapes[0], specs, shapes[1]).call(params, x, state),
        fast_jit(function)(params, x, state),
    )


READER = """
import sys
from pathlib import Path

sys.modules["jaxnn"] = None  # cannot be imported

import jax
import numpy as np

for path in sorted(Path(sys.argv[1]).glob("*.jax")):
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    with np.load(path.with_suffix(".npz")) as file:
        arrays = [file[f"arr_{i}"] for i in range(len(file.files))]
    count = len(program.in_avals)
    arguments, _ = jax.tree.unflatten(program.in_tree, arrays[:count])
    results = jax.tree.leaves(program.call(*arguments))
    if path.stem in sys.argv[2:]:  # with gradients of the params
        loss = lambda params: sum((leaf**2).sum() for leaf in jax.tree.leaves(
            program.call(params, *arguments[1:])))
        results += jax.tree.leaves(jax.grad(loss)(arguments[0]))
    largest = max(np.abs(leaf).max(initial=1) for leaf in arrays[count:])
    for result, expected in zip(results, arrays[count:], strict=True):
        np.testing.assert_allclose(
            result, expected, rtol=1e-4, atol=1e-6 * largest, err_msg=path.stem)
    print(path.stem)
"""


@pytest.mark.slow
def test_files_of_all_layers_run_without_jaxnn(tmp_path):
    with_gradients = ("conv", "recurrent_lstm", "transformer_block")
    for row in LAYERS:
        layer, params, state, x = draw_layer(row)
        order = int(row.name in with_gradients)
        nn.export(
            tmp_path / f"{row.name}.jax",
            layer,
            params,
            x,
            state=state,
            **symbolic(row),
            with_params=False,
            vjp_order=order,
        )

        def apply(params, state=state, x=x, layer=layer):
            return layer.apply(params, state, x)[0]

        def loss(params, apply=apply):
            return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(apply(params)))

        expected = [fast_jit(apply)(params)] + order * [fast_jit(jax.grad(loss))(params)]
        np.savez(
            tmp_path / f"{row.name}.npz",
            *jax.tree.leaves(_plain((params, state, x))),
            *jax.tree.leaves(expected),
        )
    script = tmp_path / "reader.py"
    script.write_text(READER)
    command = [sys.executable, script, tmp_path, *with_gradients]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == sorted(row.name for row in LAYERS)


def test_question_about_a_size_is_told(path):
    params, _ = (layer := nn.learned_positions(5)).init(jax.random.key(0), X[None])
    with pytest.raises(ValueError, match=r"'time' > '5'.*constraints"):
        nn.export(path, layer, params, X[None], symbolic="_, time, ...")
