"""Bad input is refused with the function, the argument, what came and what was expected."""

import jax
import jax.numpy as jnp
import pytest

import jaxnn as nn

ones = jnp.ones
f, losses, initializers, regularizers = nn.functional, nn.losses, nn.initializers, nn.regularizers


def key():
    """A key that no other call has used."""
    return jax.random.key(0)


def kernel_tree():
    """Params with one kernel."""
    return {"kernel": ones((2, 2)), "bias": ones(2)}


def same(f, x):
    """Call no child."""
    return x


# Each: the call, the exception, and what its message contains.
BAD_CALLS = {
    # functional
    "linear_kernel": (
        lambda: f.linear(ones(2), ones(2)),
        ValueError,
        ("linear: kernel has shape (2,)", "expected shape (in, out)"),
    ),
    "linear_features": (
        lambda: f.linear(ones((4, 3)), ones((2, 5))),
        ValueError,
        ("linear: x has shape (4, 3)", "expected 2 features", "(2, 5)"),
    ),
    "initializer_shape": (
        lambda: nn.dense(3, kernel_init=lambda key, shape, dtype: ones(2)).init(
            key(), ones((1, 4))
        ),
        ValueError,
        ("initializer <lambda>: what it made has shape (2,)", "expected shape (4, 3)"),
    ),
    "serial_of_a_list": (
        lambda: nn.serial([nn.dense(3), nn.relu]),
        TypeError,
        ("serial: '0' is a list", "serial(*layers)"),
    ),
    "parallel_of_a_dict": (
        lambda: nn.parallel({"a": nn.dense(3)}),
        TypeError,
        ("parallel: '0' is a dict", "parallel(**layers)"),
    ),
    "linear_scalar": (lambda: f.linear(1.0, ones((1, 2))), ValueError, ("x has shape ()",)),
    "linear_bias": (
        lambda: f.linear(ones(2), ones((2, 5)), ones(1)),
        ValueError,
        ("linear: bias has shape (1,)", "expected shape (5,)"),
    ),
    "flatten_scalar": (
        lambda: f.flatten(1.0),
        ValueError,
        ("flatten: x is a scalar", "expected shape (batch, ...)"),
    ),
    "dropout_rate": (
        lambda: f.dropout(key(), ones(2), 1.5),
        ValueError,
        ("dropout: rate is 1.5", "in [0, 1]"),
    ),
    "dropout_key": (
        lambda: f.dropout(0, ones(2), 0.5),
        TypeError,
        ("dropout: key is int", "jax.random.key(seed)"),
    ),
    "dropout_keys": (
        lambda: f.dropout(jax.random.split(key()), ones(2), 0.5),
        ValueError,
        ("dropout: key is an array of keys of shape (2,)", "expected one key"),
    ),
    "batch_norm_axis": (
        lambda: f.batch_norm(ones((4, 3)), ones(3), ones(3), axis=2),
        ValueError,
        ("batch_norm: axis 2 is out of range", "2 axes"),
    ),
    "batch_norm_mean": (
        lambda: f.batch_norm(ones((4, 3)), ones(4), ones(3)),
        ValueError,
        ("batch_norm: mean has shape (4,)", "expected shape (3,)"),
    ),
    "batch_norm_scale": (
        lambda: f.batch_norm(ones((4, 3)), ones(3), ones(3), ones(1)),
        ValueError,
        ("batch_norm: scale has shape (1,)", "expected shape (3,)"),
    ),
    "batch_statistics_axis": (
        lambda: f.batch_statistics(ones((4, 3)), axis=-3),
        ValueError,
        ("batch_statistics: axis -3 is out of range", "2 axes"),
    ),
    "layer_norm_axis": (
        lambda: f.layer_norm(ones((4, 3)), axis=(0, 2)),
        ValueError,
        ("layer_norm: axis (0, 2) is out of range", "2 axes"),
    ),
    "layer_norm_axis_twice": (
        lambda: f.layer_norm(ones((4, 3)), axis=(1, -1)),
        ValueError,
        ("layer_norm: axis (1, -1) names the same axis of x twice",),
    ),
    "layer_norm_bias": (
        lambda: f.layer_norm(ones((4, 3)), bias=ones((4, 3))),
        ValueError,
        ("layer_norm: bias has shape (4, 3)", "expected shape (3,)"),
    ),
    # layers
    "dense_features": (lambda: nn.dense(0), ValueError, ("dense: features is 0", "at least 1")),
    "dense_scalar": (
        lambda: nn.dense(2).init(key(), 1.0),
        ValueError,
        ("dense: x is a scalar", "expected shape (..., in)"),
    ),
    "dense_key": (lambda: nn.dense(2).init(0, ones(2)), TypeError, ("dense: key is int",)),
    "dense_positional": (lambda: nn.dense(2, False), TypeError, ("dense", "positional")),
    "dropout_layer_rate": (lambda: nn.dropout(-0.1), ValueError, ("dropout: rate is -0.1",)),
    "dropout_training_without_key": (
        lambda: nn.dropout(0.5).apply({}, {}, ones(2), train=True),
        ValueError,
        ("dropout(0.5): training is random and needs a key", "jax.random.key(seed)"),
    ),
    "batch_norm_layer_axis": (
        lambda: nn.batch_norm(axis=2).init(key(), ones((4, 3))),
        ValueError,
        ("batch_norm: axis 2 is out of range",),
    ),
    "batch_norm_decay": (
        lambda: nn.batch_norm(decay=2.0),
        ValueError,
        ("batch_norm: decay is 2.0", "in [0, 1]"),
    ),
    "batch_norm_state": (
        lambda: nn.batch_norm().apply({}, {}, ones((4, 3))),
        ValueError,
        ("batch_norm: state has []", "expected 'mean' and 'var'"),
    ),
    "layer_norm_layer_axis": (
        lambda: nn.layer_norm(axis=-3).init(key(), ones((4, 3))),
        ValueError,
        ("layer_norm: axis -3 is out of range",),
    ),
    # lifting and combinators
    "elementwise_layer": (
        lambda: nn.elementwise(nn.dense(2)),
        TypeError,
        ("elementwise: function is dense(2)", "expected a function"),
    ),
    "elementwise_number": (lambda: nn.elementwise(3), TypeError, ("elementwise: function is 3",)),
    "serial_uncalled_constructor": (
        lambda: nn.serial(nn.dense(2), nn.batch_norm),
        TypeError,
        ("serial: '1' is the constructor batch_norm", "call it, batch_norm(...)"),
    ),
    "parallel_uncalled_constructor": (
        lambda: nn.parallel(a=nn.layer_norm),
        TypeError,
        ("parallel: 'a' is the constructor layer_norm",),
    ),
    "residual_uncalled_constructor": (
        lambda: nn.residual(nn.dense),
        TypeError,
        ("residual: layer is the constructor dense",),
    ),
    "residual_shortcut_constructor": (
        lambda: nn.residual(nn.relu, nn.flatten),
        TypeError,
        ("residual: shortcut is the constructor flatten",),
    ),
    "compose_uncalled_constructor": (
        lambda: nn.compose(same, a=nn.dropout),
        TypeError,
        ("compose: 'a' is the constructor dropout",),
    ),
    "serial_class": (
        lambda: nn.serial(int),
        TypeError,
        ("serial: '0' is <class 'int'>", "expected a Layer or a function"),
    ),
    "serial_number": (lambda: nn.serial(out=3), TypeError, ("serial: 'out' is 3",)),
    "serial_mixed": (
        lambda: nn.serial(nn.relu, a=nn.relu),
        TypeError,
        ("serial: got 1 positional and 1 named layers (a)", "expected all of one kind"),
    ),
    "parallel_mixed": (lambda: nn.parallel(nn.relu, a=nn.relu), TypeError, ("parallel: got 1",)),
    "residual_shapes": (
        lambda: nn.residual(lambda x: x[:1]).apply({"layer": {}}, {}, ones((4, 3))),
        ValueError,
        ("residual: the shortcut has shape (4, 3)", "(1, 3)", "expected equal shapes"),
    ),
    "compose_never_called": (
        lambda: nn.compose(same, a=nn.dense(2)).init(key(), ones(2)),
        ValueError,
        ("compose: same never calls ['a']", "expected it to call every child"),
    ),
    "compose_unknown_child": (
        lambda: nn.compose(lambda f, x: f.b(x), a=nn.dense(2)).init(key(), ones(2)),
        AttributeError,
        ("compose: forward calls 'b'", "expected one of ['a']"),
    ),
    "stateless_with_state": (
        lambda: nn.stateless(nn.serial(nn.dense(2), nn.batch_norm()))((), ones((4, 3))),
        ValueError,
        ("stateless: serial(dense(2), batch_norm()) has state ('1/mean', '1/var')",),
    ),
    "stateless_uncalled_constructor": (
        lambda: nn.stateless(nn.dense),
        TypeError,
        ("stateless: layer is the constructor dense",),
    ),
    # losses
    "squared_error_shapes": (
        lambda: losses.squared_error(ones((4, 1)), ones(4)),
        ValueError,
        ("squared_error: predictions have shape (4, 1) and targets (4,)", "equal shapes"),
    ),
    "absolute_error_where": (
        lambda: losses.absolute_error(ones(4), ones(4), where=ones(1, bool)),
        ValueError,
        ("absolute_error: where has shape (1,)", "expected shape (4,)"),
    ),
    "huber_delta": (
        lambda: losses.huber_loss(ones(4), ones(4), delta=-1.0),
        ValueError,
        ("huber_loss: delta is -1.0", ">= 0"),
    ),
    "cross_entropy_shapes": (
        lambda: losses.softmax_cross_entropy(ones((4, 3)), ones((3, 4))),
        ValueError,
        ("labels have shape (3, 4) and logits (4, 3)", "(4,)"),
    ),
    "cross_entropy_float_classes": (
        lambda: losses.softmax_cross_entropy(ones((4, 3)), ones(4)),
        TypeError,
        ("labels of shape (4,) have dtype float32", "expected integer classes"),
    ),
    "cross_entropy_axis": (
        lambda: losses.softmax_cross_entropy(ones((4, 3)), ones((4, 3)), axis=2),
        ValueError,
        ("softmax_cross_entropy: axis 2 is out of range",),
    ),
    "cross_entropy_smoothing": (
        lambda: losses.softmax_cross_entropy(ones((4, 3)), ones((4, 3)), label_smoothing=2.0),
        ValueError,
        ("softmax_cross_entropy: label_smoothing is 2.0", "in [0, 1]"),
    ),
    "binary_cross_entropy_shapes": (
        lambda: losses.sigmoid_binary_cross_entropy(ones((4, 1)), ones(4)),
        ValueError,
        ("logits have shape (4, 1) and labels (4,)", "expected equal shapes"),
    ),
    # regularizers
    "l1_strength": (
        lambda: regularizers.l1(-1.0),
        ValueError,
        ("l1: strength is -1.0", "expected a finite number >= 0"),
    ),
    "l2_strength": (lambda: regularizers.l2(float("nan")), ValueError, ("strength is nan",)),
    "elastic_net_strength": (lambda: regularizers.elastic_net(0.1, -1.0), ValueError, ("-1.0",)),
    "l2_where_glob": (
        lambda: regularizers.l2(0.1, where="kernels")(kernel_tree()),
        ValueError,
        ("'kernels' match no path", "kernel"),
    ),
    "l2_where_tree": (
        lambda: regularizers.l2(0.1, where={"kernel": True})(kernel_tree()),
        ValueError,
        ("where lacks 'bias'",),
    ),
    # initializers
    "identity_shape": (
        lambda: initializers.identity()(key(), (2, 2, 2)),
        ValueError,
        ("identity: shape is (2, 2, 2)", "expected (in, out)"),
    ),
    "dirac_shape": (
        lambda: initializers.dirac()(key(), (2, 2)),
        ValueError,
        ("dirac: shape is (2, 2)", "expected (*spatial, in, out)"),
    ),
    "sparse_sparsity": (lambda: initializers.sparse(2.0), ValueError, ("sparsity is 2.0",)),
    "sparse_shape": (
        lambda: initializers.sparse(0.5)(key(), (2,)),
        ValueError,
        ("sparse: shape is (2,)", "expected (in, out)"),
    ),
    "gain_name": (
        lambda: initializers.calculate_gain("step"),
        ValueError,
        ("calculate_gain: nonlinearity is 'step'", "'relu'"),
    ),
    "cross_entropy_where": (
        lambda: losses.softmax_cross_entropy(ones((2, 3)), ones((2, 3)), where=ones(3, bool)),
        ValueError,
        ("softmax_cross_entropy: where has shape (3,)", "(2, 3)"),
    ),
    "elementwise_uncalled_constructor": (
        lambda: nn.elementwise(nn.dense),
        TypeError,
        ("elementwise: function is the constructor dense",),
    ),
    "dense_fraction": (lambda: nn.dense(2.5), (TypeError, ValueError), ("dense: features is 2.5",)),
    "dropout_text": (lambda: nn.dropout("half"), (TypeError, ValueError), ("rate is", "half")),
    "l2_where_none": (
        lambda: regularizers.l2(0.1, where=lambda path, leaf: False)(kernel_tree()),
        ValueError,
        ("where",),
    ),
}


def check(call, exception, fragments):
    """Run a bad call and look for the fragments in its message."""
    with pytest.raises(exception) as error:
        call()
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize("case", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(case):
    check(*case)


# Paths of children


def failing(in_init, in_apply):
    """A layer that fails."""

    def init(key, x):
        if in_init:
            raise RuntimeError("broken init")
        return {}, {}

    def apply(params, state, x, *, key=None, train=False):
        if in_apply and train:
            raise RuntimeError("broken apply")
        return x, state

    return nn.Layer(init, apply)


def nested(child):
    """A model in which each combinator is on the way to the child."""
    block = nn.compose(lambda f, x: f.conv1(x), conv1=child)
    return nn.serial(
        encoder=nn.serial(block, nn.relu),
        body=nn.residual(nn.parallel(nn.relu)),
    )


PATH = "in layer 'encoder/0/conv1'"


def test_error_in_init_carries_the_path():
    with pytest.raises(RuntimeError, match="broken init") as error:
        nested(failing(True, False)).init(key(), ones(2))
    assert PATH in error.value.__notes__


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_error_in_apply_carries_the_path(wrap):
    model = nested(failing(False, True))
    params = {"encoder": ({"conv1": {}}, {}), "body": {"layer": ({},)}}
    apply = wrap(lambda params, x: model.apply(params, {}, x, train=True))
    with pytest.raises(RuntimeError, match="broken apply") as error:
        apply(params, ones(2))
    assert PATH in error.value.__notes__


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (nn.serial(nn.relu, nn.dropout(0.5)), "1"),
        (nn.parallel(a=nn.serial(nn.dropout(0.5))), "a/0"),
        (nn.residual(nn.dropout(0.5)), "layer"),
        (nn.residual(nn.relu, nn.dropout(0.5)), "shortcut"),
        (nn.compose(lambda f, x: f.drop(x), drop=nn.dropout(0.5)), "drop"),
    ],
    ids=["serial", "parallel", "residual", "shortcut", "compose"],
)
def test_missing_key_is_reported_with_the_path(model, path):
    params, state = model.init(key(), ones(2))
    with pytest.raises(ValueError, match="needs a key") as error:
        model.apply(params, state, ones(2), train=True)
    assert f"in layer '{path}'" in error.value.__notes__


def test_wrong_input_is_reported_with_the_path():
    model = nn.serial(encoder=nn.serial(nn.dense(4)), out=nn.dense(2))
    params, state = model.init(key(), ones(3))
    with pytest.raises(ValueError, match=r"x has shape \(5,\)") as error:
        model.apply(params, state, ones(5))
    assert "in layer 'encoder/0'" in error.value.__notes__


def test_stateless_passes_errors_of_the_layer_on():
    with pytest.raises(ValueError, match="expected 3 features"):
        nn.stateless(nn.dense(2))({"kernel": ones((3, 2)), "bias": ones(2)}, ones(4))
