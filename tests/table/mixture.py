"""Mixtures of experts, and low-rank adaptation."""

import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import dense, mixture
from tests.table.rows import FunctionRow, LayerRow, normal


def linear_experts(x, logits, kernel, **options):
    """The function with experts that are matrices."""

    def experts(slots):
        return jnp.einsum("ecf,efo->eco", slots, kernel)

    return nn.functional.mixture_of_experts(x, logits, experts, **options)


def tokens_logits_kernel(rng, shape):
    """Tokens, logits of 4 experts, well apart, and a matrix for each."""
    tokens, features = shape
    logits = np.stack([rng.permutation(4) for _ in range(tokens)]) + rng.uniform(
        0, 0.5, (tokens, 4)
    )
    return rng.standard_normal(shape), logits, rng.standard_normal((4, features, 2))


def mixture_layer(top_k, capacity=None):
    """The layer with dense experts without a bias."""

    def apply(params, state, x, *, key, train):
        tokens = x.reshape(-1, x.shape[-1])
        logits, router = dense.linear(tokens, params["router"]["kernel"])
        kernel = params["experts"]["kernel"]
        y, pull = mixture.mixture_of_linear_experts(tokens, logits, kernel, top_k, capacity)

        def backward(dy):
            dtokens, dlogits, dkernel = pull(dy.reshape(y.shape))
            through_router, drouter, _ = router(dlogits)
            gradients = {"router": {"kernel": drouter}, "experts": {"kernel": dkernel}}
            return gradients, (dtokens + through_router).reshape(x.shape)

        return y.reshape(*x.shape[:-1], y.shape[-1]), backward

    return apply


def lora(scale):
    """y = x kernel + bias + scale (x down) up: the gradients of three products."""

    def apply(params, state, x, *, key, train):
        y, whole = composed.linear(params["layer"], {}, x, key=key, train=train)
        low, down = dense.linear(x, params["down"]["kernel"])
        correction, up = dense.linear(low, params["up"]["kernel"])

        def backward(dy):
            dlayer, dx = whole(dy)
            dlow, dup, _ = up(scale * dy)
            through_low, ddown, _ = down(dlow)
            gradients = {"layer": dlayer, "down": {"kernel": ddown}, "up": {"kernel": dup}}
            return gradients, dx + through_low

        return y + scale * correction, backward

    return apply


LAYERS = (
    LayerRow(
        "mixture_of_experts",
        "mixture_of_experts(dense(3, use_bias=False), 4)",
        lambda: nn.mixture_of_experts(nn.dense(3, use_bias=False), 4),
        ((5, 6), (2, 3, 4)),
        mixture_layer(2),
        has_state=True,
    ),
    LayerRow(
        "mixture_of_experts_capacity",
        "mixture_of_experts(dense(3, use_bias=False), 3, top_k=1, capacity_factor=0.5)",
        lambda: nn.mixture_of_experts(nn.dense(3, use_bias=False), 3, top_k=1, capacity_factor=0.5),
        ((6, 4),),
        mixture_layer(1, 1),
        has_state=True,
        couples_examples=(False, True),
    ),
    LayerRow(
        "lora",
        "lora(dense(5), 2, scale=0.5)",
        lambda: nn.lora(nn.dense(5), 2, scale=0.5),
        reference=lora(0.5),
    ),
)

FUNCTIONS = (
    *(
        FunctionRow(
            "functional.mixture_of_experts",
            linear_experts,
            mixture.mixture_of_linear_experts,
            tokens_logits_kernel,
            ((5, 3), (1, 2)),
            options,
        )
        for options in (
            {},
            {"top_k": 1},
            {"top_k": 4},
            {"top_k": 1, "capacity": 1},
            {"top_k": 2, "capacity": 2},
        )
    ),
    *(
        FunctionRow(
            "functional.expert_balance",
            nn.functional.expert_balance,
            mixture.expert_balance,
            normal,
            ((5, 4),),
            {"top_k": top_k},
        )
        for top_k in (1, 2)
    ),
)
