"""Values and gradients against torch, and losses against optax, with weights carried over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

F32 = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compare(ours, torchs, arguments, torch, tolerance=F32):
    """Compare value and gradients of sum(sin(y)) over all floating arguments."""

    @fast_jit
    def derived(*arguments):
        y, pullback = jax.vjp(ours, *arguments)
        return y, pullback(jnp.cos(y))

    y, gradients = derived(*arguments)
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    expected = torchs(*tensors)
    np.testing.assert_allclose(y, expected.detach(), **tolerance)
    expected.backward(torch.cos(expected.detach()))
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, **tolerance)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_linear(torch, leading):
    arguments = normal(0, *leading, 5), normal(1, 5, 3), normal(2, 3)

    def torchs(x, kernel, bias):
        return torch.nn.functional.linear(x, kernel.T, bias)

    compare(nn.functional.linear, torchs, arguments, torch)


@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_batch_norm(torch, shape, train):
    kinds = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
    module = kinds[len(shape)](3, momentum=0.2, eps=1e-3)
    layer = nn.batch_norm(axis=1, decay=0.8, epsilon=1e-3)
    scale, bias = normal(1, 3), normal(2, 3)
    state = {"mean": normal(3, 3), "var": np.abs(normal(4, 3)) + 0.5}
    module.running_mean = torch.tensor(state["mean"])
    module.running_var = torch.tensor(state["var"])
    module.train(train)

    def ours(x, scale, bias):
        return layer.apply({"scale": scale, "bias": bias}, state, x, train=train)[0]

    def torchs(x, scale, bias):
        del module.weight, module.bias
        module.weight, module.bias = scale, bias
        return module(x)

    x = 3 + 2 * normal(0, *shape)
    compare(ours, torchs, (x, scale, bias), torch)
    _, new_state = layer.apply({"scale": scale, "bias": bias}, state, x, train=train)
    np.testing.assert_allclose(new_state["mean"], module.running_mean, **F32)
    np.testing.assert_allclose(new_state["var"], module.running_var, **F32)


@pytest.mark.parametrize("axes", [(-1,), (-2, -1)])
def test_layer_norm(torch, axes):
    x = normal(0, 3, 4, 5)
    normalised = tuple(x.shape[a] for a in axes)

    def ours(x, scale, bias):
        return nn.functional.layer_norm(x, scale, bias, axis=axes, epsilon=1e-4)

    def torchs(x, scale, bias):
        return torch.nn.functional.layer_norm(x, normalised, scale, bias, 1e-4)

    compare(ours, torchs, (x, normal(1, *normalised), normal(2, *normalised)), torch)


@pytest.mark.parametrize(("approximate", "torchs"), [(True, "tanh"), (False, "none")])
def test_gelu(torch, approximate, torchs):
    def ours(x):
        return nn.gelu(x, approximate=approximate)

    def theirs(x):
        return torch.nn.functional.gelu(x, approximate=torchs)

    compare(ours, theirs, (3 * normal(0, 50),), torch)


SAME_DEFAULTS = {
    "celu": "celu",
    "elu": "elu",
    "hard_sigmoid": "hardsigmoid",
    "hard_silu": "hardswish",
    "hard_tanh": "hardtanh",
    "leaky_relu": "leaky_relu",
    "log_sigmoid": "logsigmoid",
    "mish": "mish",
    "relu": "relu",
    "relu6": "relu6",
    "selu": "selu",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "soft_sign": "softsign",
    "softplus": "softplus",
    "tanh": "tanh",
}


@pytest.mark.parametrize("name", SAME_DEFAULTS)
def test_activation_with_default_arguments(torch, name):
    theirs = getattr(torch.nn.functional, SAME_DEFAULTS[name])
    compare(getattr(nn, name), theirs, (4 * normal(0, 50),), torch)


def test_elementwise_losses(torch):
    functional = torch.nn.functional
    pairs = {
        nn.losses.squared_error: functional.mse_loss,
        nn.losses.absolute_error: functional.l1_loss,
        nn.losses.huber_loss: functional.huber_loss,
    }
    for ours, theirs in pairs.items():
        arguments = 2 * normal(0, 4, 3), normal(1, 4, 3)
        compare(ours, lambda a, b, f=theirs: f(a, b, reduction="none"), arguments, torch)


@pytest.mark.parametrize("delta", [0.3, 2.0])
def test_huber_delta(torch, delta):
    def theirs(a, b):
        return torch.nn.functional.huber_loss(a, b, reduction="none", delta=delta)

    def ours(a, b):
        return nn.losses.huber_loss(a, b, delta=delta)

    compare(ours, theirs, (2 * normal(0, 20), normal(1, 20)), torch)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(6, 4), (2, 4, 3)])
def test_cross_entropy_of_classes(torch, smoothing, shape):
    labels = np.random.default_rng(0).integers(0, 4, np.delete(shape, 1))

    def ours(logits):
        return nn.losses.softmax_cross_entropy(logits, labels, axis=1, label_smoothing=smoothing)

    def theirs(logits):
        return torch.nn.functional.cross_entropy(
            logits, torch.tensor(labels), reduction="none", label_smoothing=smoothing
        )

    compare(ours, theirs, (3 * normal(1, *shape),), torch)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_distributions(torch, smoothing):
    labels = np.abs(normal(0, 6, 4))
    labels /= labels.sum(-1, keepdims=True)

    def ours(logits, labels):
        return nn.losses.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)

    def theirs(logits, labels):
        return torch.nn.functional.cross_entropy(
            logits, labels, reduction="none", label_smoothing=smoothing
        )

    compare(ours, theirs, (3 * normal(1, 6, 4), labels), torch)


def test_binary_cross_entropy(torch):
    def theirs(logits, labels):
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels, reduction="none"
        )

    labels = np.random.default_rng(0).random(20).astype(np.float32)
    compare(nn.losses.sigmoid_binary_cross_entropy, theirs, (4 * normal(1, 20), labels), torch)


def test_network(torch):
    model = nn.serial(nn.dense(6), nn.batch_norm(), nn.tanh, nn.layer_norm(), nn.dense(2))
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 6),
        torch.nn.BatchNorm1d(6),
        torch.nn.Tanh(),
        torch.nn.LayerNorm(6),
        torch.nn.Linear(6, 2),
    )
    x = normal(0, 8, 3)
    params, state = model.init(jax.random.key(0), x)
    leaves, tree = jax.tree.flatten(params)
    params = tree.unflatten([normal(i, *leaf.shape) for i, leaf in enumerate(leaves)])
    for layer, module in zip(params, theirs, strict=True):
        for leaf, value in layer.items():
            name = "bias" if leaf == "bias" else "weight"
            getattr(module, name).data = torch.tensor(value.T.copy())

    def loss(params):
        y, new_state = model.apply(params, state, x, train=True)
        return jnp.sum(y**2), new_state

    (value, new_state), gradients = fast_jit(jax.value_and_grad(loss, has_aux=True))(params)
    expected = (theirs(torch.tensor(x)) ** 2).sum()
    expected.backward()
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-4)
    np.testing.assert_allclose(new_state["1"]["var"], theirs[1].running_var, rtol=1e-4)
    for layer, module in zip(gradients, theirs, strict=True):
        for leaf, gradient in layer.items():
            parameter = getattr(module, "bias" if leaf == "bias" else "weight")
            np.testing.assert_allclose(gradient.T, parameter.grad, rtol=1e-3, atol=1e-3)


# optax


@pytest.fixture(scope="module")
def optax():
    """The optax package."""
    return pytest.importorskip("optax")


def agree(ours, theirs, x):
    """Compare value and gradient of two functions of one array."""

    @fast_jit
    def derived(x):
        pairs = [jax.vjp(f, x) for f in (ours, theirs)]
        return [(y, pullback(jnp.cos(y))[0]) for y, pullback in pairs]

    for got, expected in zip(*derived(x), strict=True):
        np.testing.assert_allclose(got, expected, **F32)


@pytest.mark.parametrize(
    ("name", "options"),
    [("squared_error", {}), ("huber_loss", {"delta": 0.5})],
)
def test_optax_regression(optax, name, options):
    targets = normal(1, 4, 3)

    def with_targets(module):
        return lambda x: getattr(module, name)(x, targets, **options)

    agree(with_targets(nn.losses), with_targets(optax.losses), 2 * normal(0, 4, 3))
    x = normal(2, 4, 3)
    np.testing.assert_allclose(
        getattr(nn.losses, name)(x, **options), getattr(optax.losses, name)(x, **options), **F32
    )


def test_optax_sigmoid_cross_entropy(optax):
    labels = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    name = "sigmoid_binary_cross_entropy"
    ours, theirs = (
        lambda x, m=module: getattr(m, name)(x, labels) for module in (nn.losses, optax.losses)
    )
    agree(ours, theirs, 4 * normal(0, 4, 3))


@pytest.mark.parametrize("axis", [-1, 0])
def test_optax_softmax_cross_entropy(optax, axis):
    logits = 3 * normal(0, 4, 3)
    labels = np.abs(normal(1, 4, 3))
    labels /= labels.sum(axis, keepdims=True)
    classes = np.argmax(labels, axis)
    ours, theirs = nn.losses.softmax_cross_entropy, optax.losses
    agree(
        lambda x: ours(x, labels, axis),
        lambda x: theirs.softmax_cross_entropy(x, labels, axis),
        logits,
    )
    agree(
        lambda x: ours(x, classes, axis),
        lambda x: theirs.softmax_cross_entropy_with_integer_labels(x, classes, axis),
        logits,
    )


def test_optax_label_smoothing(optax):
    logits, one_hot = 3 * normal(0, 4, 3), np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]

    def theirs(x):
        return optax.losses.softmax_cross_entropy(x, optax.smooth_labels(one_hot, 0.2))

    def ours(x):
        return nn.losses.softmax_cross_entropy(x, one_hot, label_smoothing=0.2)

    agree(ours, theirs, logits)


@pytest.mark.parametrize("labels_are_classes", [True, False], ids=["classes", "distributions"])
def test_optax_where(optax, labels_are_classes):
    logits, classes = 3 * normal(0, 3, 4), np.array([0, 2, 1])
    where = np.array([[True, True, True, False], [False, True, True, True], [True] * 4])
    one_hot = np.eye(4, dtype=np.float32)[classes]
    labels = classes if labels_are_classes else one_hot

    def ours(x):
        return nn.losses.softmax_cross_entropy(x, labels, where=where)

    def theirs(x):
        return optax.losses.softmax_cross_entropy(x, one_hot, where=where)

    agree(ours, theirs, logits)
