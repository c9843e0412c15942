"""Losses that torch has too: values and gradients, with the differences in definition stated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

RNG = np.random.default_rng(0)
N, CLASSES = 6, 4
X, Y = RNG.standard_normal((2, N, CLASSES))
LABELS = np.array([0, 3, 1, 2, 3, 0])
SIGNS = np.array([1, -1, -1, 1, -1, 1])
P = RNG.uniform(0.1, 1.0, (N, CLASSES))
P /= P.sum(-1, keepdims=True)
LOG_P = np.log(P)
WEIGHTS = RNG.uniform(0.2, 2.0, CLASSES)
VARIANCES = RNG.uniform(0.3, 2.0, (N, CLASSES))
losses = nn.losses


def torch_losses(torch):
    """Each of torch's, with the same arguments as ours of the same name in `OURS`."""
    f = torch.nn.functional
    none = {"reduction": "none"}
    labels, weights = torch.tensor(LABELS), torch.tensor(WEIGHTS)
    return {
        "l2_loss": lambda a, b: f.mse_loss(a, b, **none) / 2,
        "weighted cross-entropy": lambda z: f.cross_entropy(
            z, labels, weight=weights, label_smoothing=0.2, **none
        ),
        "weighted cross-entropy of distributions": lambda z, p: f.cross_entropy(
            z, p, weight=weights, label_smoothing=0.2, **none
        ),
        "cross-entropy that ignores": lambda z: f.cross_entropy(z, labels, ignore_index=3, **none),
        "cross-entropy with integer labels": lambda z: f.cross_entropy(z, labels, **none),
        "nll": lambda z: f.nll_loss(z, labels, weight=weights, ignore_index=3, **none),
        "gaussian_nll": lambda m, t, v: f.gaussian_nll_loss(m, t, v, **none),
        "full gaussian_nll": lambda m, t, v: f.gaussian_nll_loss(m, t, v, full=True, **none),
        "poisson_nll": lambda a, b: f.poisson_nll_loss(a, b, **none),
        "poisson_nll of rates": lambda a, b: f.poisson_nll_loss(
            a, b, log_input=False, eps=0.1, **none
        ),
        "kl_divergence": lambda z, p: f.kl_div(z, p, **none).sum(-1),
        "kl_divergence_with_log_targets": lambda z, q: f.kl_div(z, q, log_target=True, **none).sum(
            -1
        ),
        "cosine_embedding_loss": lambda a, b: f.cosine_embedding_loss(
            a, b, torch.tensor(SIGNS), margin=0.2, **none
        ),
        "margin_ranking_loss": lambda a, b, c: f.margin_ranking_loss(a, b, c, margin=0.2, **none),
        "gaussian_kl_divergence": lambda m, v, n, u: torch.distributions.kl_divergence(
            torch.distributions.Normal(m, torch.exp(v / 2)),
            torch.distributions.Normal(n, torch.exp(u / 2)),
        ),
        "cosine_similarity": lambda a, b: f.cosine_similarity(a, b, eps=0.0),
        # eps is added to a - b in torch, and to the sum of powers here.
        "triplet_margin_loss": lambda a, b, c: f.triplet_margin_loss(a, b, c, eps=0.0, **none),
        "triplet_margin_loss of degree 1": lambda a, b, c: f.triplet_margin_loss(
            a, b, c, margin=0.3, p=1.0, eps=0.0, **none
        ),
    }


OURS = {
    "l2_loss": (losses.l2_loss, (X, Y)),
    "weighted cross-entropy": (
        lambda z: losses.softmax_cross_entropy(
            z, LABELS, class_weights=WEIGHTS, label_smoothing=0.2
        ),
        (X,),
    ),
    "weighted cross-entropy of distributions": (
        functools.partial(losses.softmax_cross_entropy, class_weights=WEIGHTS, label_smoothing=0.2),
        (X, P),
    ),
    "cross-entropy that ignores": (
        lambda z: losses.softmax_cross_entropy(z, LABELS, ignore_index=3),
        (X,),
    ),
    "cross-entropy with integer labels": (
        lambda z: losses.softmax_cross_entropy_with_integer_labels(z, LABELS),
        (X,),
    ),
    "nll": (lambda z: losses.nll(z, LABELS, class_weights=WEIGHTS, ignore_index=3), (LOG_P,)),
    "gaussian_nll": (losses.gaussian_nll, (X, Y, VARIANCES)),
    "full gaussian_nll": (functools.partial(losses.gaussian_nll, full=True), (X, Y, VARIANCES)),
    "poisson_nll": (losses.poisson_nll, (X, np.abs(Y))),
    "poisson_nll of rates": (
        functools.partial(losses.poisson_nll, log_input=False, epsilon=0.1),
        (np.abs(X), np.abs(Y)),
    ),
    "kl_divergence": (losses.kl_divergence, (X, P)),
    "kl_divergence_with_log_targets": (losses.kl_divergence_with_log_targets, (X, LOG_P)),
    "cosine_embedding_loss": (
        lambda a, b: losses.cosine_embedding_loss(a, b, SIGNS, margin=0.2),
        (X, Y),
    ),
    "margin_ranking_loss": (functools.partial(losses.margin_ranking_loss, margin=0.2), (X, Y, P)),
    "gaussian_kl_divergence": (losses.gaussian_kl_divergence, (X, Y, P, LOG_P)),
    "cosine_similarity": (losses.cosine_similarity, (X, Y)),
    "triplet_margin_loss": (functools.partial(losses.triplet_margin_loss, eps=0.0), (X, Y, P)),
    "triplet_margin_loss of degree 1": (
        functools.partial(losses.triplet_margin_loss, eps=0.0, norm_degree=1, margin=0.3),
        (X, Y, P),
    ),
}


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


@functools.cache
def derived():
    """Our values and the gradients of sum(sin(y)), in one program."""

    def of(function, arguments):
        y, pullback = jax.vjp(function, *arguments)
        return y, pullback(jnp.cos(y))

    @fast_jit
    def all_of_them(arguments):
        return {name: of(OURS[name][0], given) for name, given in arguments.items()}

    with jax.enable_x64(True):
        return all_of_them({name: arguments for name, (_, arguments) in OURS.items()})


@pytest.mark.parametrize("name", OURS)
def test_value_and_gradients(torch, name):
    y, gradients = derived()[name]
    tensors = [torch.tensor(a, requires_grad=True) for a in OURS[name][1]]
    expected = torch_losses(torch)[name](*tensors)
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-10, atol=1e-12)
    torch.sin(expected).sum().backward()
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, rtol=1e-10, atol=1e-12)


def test_the_weighted_mean_of_torch(torch):
    labels, weights = torch.tensor(LABELS), torch.tensor(WEIGHTS)
    expected = torch.nn.functional.cross_entropy(torch.tensor(X), labels, weight=weights)
    ours = losses.softmax_cross_entropy(X, LABELS, class_weights=WEIGHTS).sum()
    np.testing.assert_allclose(ours / WEIGHTS[LABELS].sum(), expected, rtol=1e-6)


def test_the_gradient_in_a_variance_below_epsilon_is_0_here_and_passes_in_torch(torch):
    ours = jax.grad(lambda v: losses.gaussian_nll(1.0, 2.0, v, epsilon=0.5))(0.1)
    v = torch.tensor(0.1, requires_grad=True)
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    torch.nn.functional.gaussian_nll_loss(one, two, v, eps=0.5).backward()
    assert ours == 0
    assert v.grad == -1
