"""Mixtures of experts."""

import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike

from jaxnn import functional, initializers
from jaxnn._combinators.copies import copy_keys, init_copies
from jaxnn._core.arrays import check_count, check_key, check_range, check_shape, floating, widen
from jaxnn._core.children import child_params
from jaxnn._core.construction import constructor
from jaxnn._core.layer import (
    Layer,
    LayerLike,
    abstract,
    as_layer,
    child_key,
    child_scope,
    param_dtype,
    shape_of,
)
from jaxnn._core.meshes import automatic
from jaxnn._core.types import PyTree
from jaxnn._core.watching import Crossing, Seen, below
from jaxnn._layers.params import draw


@constructor
def mixture_of_experts(
    expert: LayerLike,
    num_experts: int,
    *,
    top_k: int = 2,
    capacity_factor: float | None = None,
    router_init: Initializer = initializers.lecun_normal(),  # noqa: B008
) -> Layer:
    """A sparse mixture of experts: a router sends each token to `top_k` of many copies of a layer.

    `y = sum_e g_e f_e(x)` over the chosen experts, with gates `g` made of `softmax(x @ router)` as
    in `nn.functional.mixture_of_experts`. A token whose experts are all full gives zeros: put the
    mixture in an `nn.residual`.

    `apply` takes `where=`, booleans of the shape of `x` without its features, False at padding:
    such tokens take no room, do not count in the loss, and give 0.

    Training returns the load-balancing loss, `nn.functional.expert_balance`, in the state as
    `"balance_loss"`: add it to the loss with a weight of about 0.01.

    Papers: Shazeer et al., Outrageously Large Neural Networks, https://arxiv.org/abs/1701.06538;
    Fedus et al., Switch Transformers, https://arxiv.org/abs/2101.03961

    Args:
        expert: a layer over `(tokens, features)` without state, as `nn.feed_forward(256)`.
        num_experts: the number of experts.
        top_k: the number of experts for each token.
        capacity_factor: the capacity of each expert as a multiple of its share,
            `ceil(capacity_factor * top_k * tokens / num_experts)` tokens; those beyond are dropped.
            None drops none, at the cost of memory for all tokens at each expert.
        router_init: initializer of the router's kernel, shape `(features, num_experts)`.

    Returns:
        A `Layer` over `(..., features)`, with params `{"router": {"kernel"}, "experts": ...}`, the
        leaves of `experts` with a leading axis, and state `{"balance_loss"}`. The router computes
        in float32 or wider.

    Raises:
        TypeError: `num_experts` or `top_k` is not an integer.
        ValueError: `num_experts` is less than 1, `top_k` not between 1 and `num_experts`, or
            `capacity_factor` negative; `expert` has state.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> expert = nn.serial(nn.dense(16), nn.relu, nn.dense(8))
        >>> layer = nn.mixture_of_experts(expert, 4, capacity_factor=1.25)
        >>> x = jax.random.normal(jax.random.key(0), (2, 32, 8))
        >>> params, state = layer.init(jax.random.key(1), x)
        >>> params["experts"][0]["kernel"].shape
        (4, 8, 16)
        >>> def loss(params):
        ...     y, new_state = layer.apply(params, state, x, train=True)
        ...     return jnp.mean(y**2) + 0.01 * new_state["balance_loss"]
        >>> jax.tree.map(jnp.shape, jax.grad(loss)(params)["router"])
        {'kernel': (8, 4)}
    """
    expert = as_layer(expert, "mixture_of_experts: expert")
    check_count("mixture_of_experts", "num_experts", num_experts)
    if check_count("mixture_of_experts", "top_k", top_k) > num_experts:
        raise ValueError(f"mixture_of_experts: top_k is {top_k}, expected at most {num_experts}")
    if capacity_factor is not None:
        check_range("mixture_of_experts", "capacity_factor", capacity_factor, 0)

    def init(key: jax.Array, x: PyTree) -> tuple[PyTree, PyTree]:
        check_key("mixture_of_experts", key)
        features = shape_of("mixture_of_experts", x)[-1]
        x, dtype = abstract(x), param_dtype(x)
        token = jax.ShapeDtypeStruct((1, features), x.dtype)
        with child_scope("experts"):
            params, state = init_copies(
                "mixture_of_experts", expert, num_experts, child_key(key, "experts"), token, {}
            )
        if jax.tree.leaves(state):
            raise ValueError(f"mixture_of_experts: {expert!r} has state, expected a layer without")
        router = {
            "kernel": draw(router_init, child_key(key, "router"), (features, num_experts), dtype)
        }
        return {"router": router, "experts": params}, {"balance_loss": jnp.zeros((), dtype)}

    def apply(
        params: PyTree,
        state: PyTree,
        x: PyTree,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        where: ArrayLike | None = None,
    ) -> tuple[PyTree, PyTree]:
        by_name = child_params("mixture_of_experts", params, ("router", "experts"))
        x = floating(x)
        if where is not None:
            check_shape("mixture_of_experts", "where", where, x.shape[:-1])
        own_key = None if key is None else child_key(key, "experts")
        keys = copy_keys("mixture_of_experts", own_key, num_experts)
        tokens = math.prod(x.shape[:-1])
        capacity = None
        if capacity_factor is not None:
            share = Fraction(float(capacity_factor)).limit_denominator(10**6) * top_k / num_experts
            least = -(-share.numerator * tokens // share.denominator)
            capacity = jax.core.max_dim(least, 1)

        def mixed(
            x: jax.Array, by_name: PyTree, where: jax.Array | None, keys: Any
        ) -> tuple[jax.Array, jax.Array | None]:
            of_token = x.reshape(tokens, x.shape[-1])
            if where is not None:
                where = jnp.ravel(where)
                of_token = jnp.where(where[:, None], of_token, 0)  # NaN would reach the gradient
            with child_scope("router"):
                logits = functional.linear(widen(of_token), by_name["router"]["kernel"])

            def run(slots: jax.Array) -> jax.Array:
                with child_scope("experts"), below("experts"):
                    crossing = Crossing()

                    def one(params: PyTree, x: jax.Array, key: Any, added: Seen) -> Any:
                        with crossing.inside(added) as seen:
                            y, _ = expert.apply(params, {}, x, key=key, train=train)
                        return y, seen

                    y, seen = jax.vmap(one)(by_name["experts"], slots, keys, crossing.added)
                    crossing.report(seen)
                return jnp.asarray(y)

            y = functional.mixture_of_experts(
                of_token, logits, run, top_k=top_k, capacity=capacity, where=where
            )
            loss = functional.expert_balance(logits, top_k=top_k, where=where) if train else None
            return y.reshape(*x.shape[:-1], y.shape[-1]), loss

        leading = (x.ndim - 1, 0 if train else None)
        y, balance = automatic(mixed, x, by_name, where, keys, leading=leading)
        if train:
            state = {"balance_loss": balance.astype(state["balance_loss"].dtype)}
        return y, state

    return Layer(init, apply)
