"""Attention against torch: values and all gradients, with weights carried over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

F32 = {"rtol": 1e-5, "atol": 1e-5}
GRADIENTS = {"rtol": 1e-4, "atol": 1e-4}  # of sums over all positions


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def normal(seed, *shape):
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compare(ours, theirs, arguments, torch):
    """Compare value and gradients of sum(sin(y)) over all arguments."""

    @fast_jit
    def derived(*arguments):
        y, pullback = jax.vjp(ours, *arguments)
        return y, pullback(jnp.cos(y))

    y, gradients = derived(*arguments)
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    expected = theirs(*tensors)
    np.testing.assert_allclose(y, expected.detach(), **F32)
    expected.backward(torch.cos(expected.detach()))
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, **F32)


# dot_product_attention against scaled_dot_product_attention, which has the heads before the time

BATCH, TIME, KEYS, HEADS, FEATURES = 2, 4, 6, 4, 8
LOGITS = (BATCH, HEADS, TIME, KEYS)


def a_mask(*shape):
    """Booleans of which each row has some that are True."""
    mask = np.random.default_rng(0).random(shape) < 0.6
    mask[..., 0] = True
    return mask


CASES = {
    "plain": ({}, {}),
    "scale": ({"scale": 0.3}, {"scale": 0.3}),
    "causal": ({"is_causal": True, "query_offset": 0}, {"is_causal": True}),
    "mask": ({"mask": a_mask(*LOGITS)}, {"attn_mask": a_mask(*LOGITS)}),
    "padding": (
        {"mask": nn.functional.padding_mask(np.array([3, 6]), KEYS)},
        {"attn_mask": np.arange(KEYS) < np.array([3, 6]).reshape(2, 1, 1, 1)},
    ),
}


@pytest.mark.parametrize(
    ("case", "kv_heads"),
    [
        ("plain", HEADS),
        ("padding", HEADS),
        ("mask", 2),
        ("causal", 1),
        *(
            pytest.param(case, HEADS, marks=pytest.mark.slow)
            for case in ("scale", "causal", "mask")
        ),
    ],
)
def test_dot_product_attention(torch, case, kv_heads):
    own_options, options = CASES[case]

    def ours(query, key, value):
        return nn.functional.dot_product_attention(query, key, value, **own_options)

    def theirs(query, key, value):
        tensors = [a.transpose(1, 2) for a in (query, key, value)]
        given = {k: torch.tensor(v) if k == "attn_mask" else v for k, v in options.items()}
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(*tensors, **given, enable_gqa=kv_heads < HEADS).transpose(1, 2)

    query = normal(0, BATCH, TIME, HEADS, FEATURES)
    key, value = (normal(i, BATCH, KEYS, kv_heads, FEATURES) for i in (1, 2))
    compare(ours, theirs, (query, key, value), torch)


@pytest.mark.parametrize("shape", [LOGITS, (1, HEADS, 1, KEYS)])
def test_bias(torch, shape):
    def ours(query, key, value, bias):
        return nn.functional.dot_product_attention(query, key, value, bias=bias)

    def theirs(query, key, value, bias):
        tensors = [a.transpose(1, 2) for a in (query, key, value)]
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(*tensors, attn_mask=bias).transpose(1, 2)

    query = normal(0, BATCH, TIME, HEADS, FEATURES)
    key, value = (normal(i, BATCH, KEYS, HEADS, FEATURES) for i in (1, 2))
    compare(ours, theirs, (query, key, value, 3 * normal(3, *shape)), torch)


# The layer against MultiheadAttention, which has the three kernels in one

EMBED, MEMORY = 8, 5


def carried_over(module, of):
    """The params of our layer from what `of` gives for each parameter: its value or gradient."""
    if module.in_proj_weight is None:
        kernels = [
            of(w) for w in (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        ]
    else:
        kernels = np.split(of(module.in_proj_weight), 3)
    kernels, biases = [*kernels, of(module.out_proj.weight)], np.split(of(module.in_proj_bias), 3)
    leaves = zip(kernels, [*biases, of(module.out_proj.bias)], strict=True)
    names = ("query", "key", "value", "out")
    return {n: {"kernel": k.T, "bias": b} for n, (k, b) in zip(names, leaves, strict=True)}


MASKS = {
    "plain": ({}, {}),
    "key_padding": (
        {"mask": nn.functional.padding_mask(np.array([2, 4]), 4)},
        {"key_padding_mask": np.arange(4) >= np.array([[2], [4]])},
    ),
    "mask": ({"mask": a_mask(1, 1, 4, 4)}, {"attn_mask": ~a_mask(4, 4)}),
    "bias": ({"bias": normal(9, 1, 1, 4, 4)}, {"attn_mask": normal(9, 4, 4)}),
}


@pytest.mark.parametrize(
    ("cross", "masks"),
    [
        *((False, masks) for masks in MASKS),
        (True, "key_padding"),
        *(pytest.param(True, masks, marks=pytest.mark.slow) for masks in ("plain", "mask", "bias")),
    ],
)
def test_multi_head_attention(torch, cross, masks):
    own_options, options = MASKS[masks]
    sizes = {"kdim": MEMORY, "vdim": MEMORY} if cross else {}
    module = torch.nn.MultiheadAttention(EMBED, 2, batch_first=True, **sizes)
    for i, parameter in enumerate(module.parameters()):
        parameter.data = torch.tensor(normal(10 + i, *parameter.shape) / 2)
    params = carried_over(module, lambda p: p.detach().numpy())
    x, memory = normal(0, 2, 4, EMBED), normal(1, 2, 4, MEMORY)
    sources = {"memory": memory} if cross else {}

    @fast_jit
    def derived(params, x, sources):
        def apply(params, x, sources):
            layer = nn.attention(2, return_weights=True)
            return layer.apply(params, {}, x, **sources, **own_options)[0]

        (y, weights), pullback = jax.vjp(apply, params, x, sources)
        return y, weights, pullback((jnp.cos(y), jnp.cos(weights)))

    y, weights, (dparams, dx, dsources) = derived(params, x, sources)
    tensor = torch.tensor(x, requires_grad=True)
    source = torch.tensor(memory, requires_grad=True) if cross else tensor
    given = {name: torch.tensor(value) for name, value in options.items()}
    both = module(tensor, source, source, **given, average_attn_weights=False)
    torch.autograd.backward(both, [torch.cos(result.detach()) for result in both])

    for got, expected in zip((y, weights), both, strict=True):
        np.testing.assert_allclose(got, expected.detach(), **F32)
    np.testing.assert_allclose(dx, tensor.grad, **GRADIENTS)
    for dsource in dsources.values():
        np.testing.assert_allclose(dsource, source.grad, **GRADIENTS)
    expected_params = carried_over(module, lambda p: p.grad.numpy())
    assert jax.tree.structure(dparams) == jax.tree.structure(expected_params)
    for got, wanted in zip(*map(jax.tree.leaves, (dparams, expected_params)), strict=True):
        np.testing.assert_allclose(got, wanted, **GRADIENTS)
