"""The rows of gradient descent, RMSprop, Adam, AdamW and clipping."""

from collections.abc import Callable
from typing import Any

import jax

import jaxnn as nn
from tests.numpy_reference import optimizers as reference
from tests.numpy_reference import schedules as reference_schedules
from tests.optimizer_cases.case import (
    DECAY,
    Case,
    decayed_by_rate,
    is_kernel,
    kernels,
    rate_of,
    same,
    torch_decaying,
    torch_optimizer,
)


def averaged_sgd(optax: Any, rate: Any, nesterov: bool = False) -> Any:
    """What `sgd(averaged=True)` is in optax, which has no such argument."""
    mean = optax.trace(0.8, nesterov)
    return optax.chain(optax.scale(1 - 0.8), mean, optax.scale_by_learning_rate(rate))


def masked_adamw(name: str, decays: Callable[[str], bool], **kwargs: Any) -> Case:
    """The row of `adamw(**kwargs)` that decays the leaves whose path `decays`."""

    def by_path(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: decays(jax.tree_util.keystr(path, simple=True, separator="/")), params
        )

    return Case(
        name,
        lambda library, rate: library.adamw(rate, weight_decay=DECAY, **kwargs),
        lambda rate, path: (
            reference.adamw(rate, weight_decay=DECAY, decay_all=True)
            if decays(path)
            else reference.adam(rate)
        ),
        optax=lambda optax, rate: optax.adamw(rate, weight_decay=DECAY, mask=by_path),
        torch=torch_decaying("AdamW", decays),
    )


def decay_schedule(library: Any) -> Any:
    return library.cosine_decay_schedule(0.5, 100, 0.1)


def clipped(gradients: dict, weights: dict) -> dict:
    return {path: reference.clip(g, 0.5) for path, g in gradients.items()}


def clipped_by_global_norm(gradients: dict, weights: dict) -> dict:
    shrunk = reference.clip_by_global_norm(list(gradients.values()), 0.5)
    return dict(zip(gradients, shrunk, strict=True))


def with_decayed_weights(gradients: dict, weights: dict) -> dict:
    return {p: g + DECAY * is_kernel(p) * weights[p] for p, g in gradients.items()}


def descend_by(library: Any, rate: Any) -> Any:
    """`scale` or `scale_by_schedule`, whichever takes `rate`."""
    if callable(rate):
        return library.scale_by_schedule(lambda count: -rate(count))
    return library.scale(-rate)


ROWS = [
    same("sgd", "sgd", torch=torch_optimizer("SGD")),
    same("sgd-momentum", "sgd", torch_optimizer("SGD", momentum=0.8), momentum=0.8),
    same(
        "sgd-nesterov",
        "sgd",
        torch_optimizer("SGD", momentum=0.8, nesterov=True),
        momentum=0.8,
        nesterov=True,
    ),
    same("sgd-averaged", "sgd", momentum=0.8, averaged=True)._replace(optax=averaged_sgd),
    same("sgd-averaged-nesterov", "sgd", momentum=0.8, nesterov=True, averaged=True)._replace(
        optax=lambda optax, rate: averaged_sgd(optax, rate, nesterov=True)
    ),
    same("rmsprop", "rmsprop"),
    same("rmsprop-all-numbers", "rmsprop", decay=0.8, eps=1e-3, initial_scale=1.0),
    same(
        "rmsprop-eps-outside",
        "rmsprop",
        torch_optimizer("RMSprop", alpha=0.9),
        eps_in_sqrt=False,
    ),
    same("rmsprop-corrected", "rmsprop", bias_correction=True, eps=1e-6),
    same("rmsprop-centered", "rmsprop", centered=True, eps=1e-3),
    same(
        "rmsprop-centered-eps-outside",
        "rmsprop",
        torch_optimizer("RMSprop", alpha=0.9, eps=1e-3, centered=True),
        centered=True,
        eps=1e-3,
        eps_in_sqrt=False,
    ),
    same(
        "rmsprop-centered-corrected-momentum",
        "rmsprop",
        centered=True,
        eps=1e-3,
        bias_correction=True,
        momentum=0.5,
    ),
    same(
        "rmsprop-momentum",
        "rmsprop",
        torch_optimizer("RMSprop", alpha=0.9, momentum=0.7),
        eps_in_sqrt=False,
        momentum=0.7,
    )._replace(torch_schedules=False),  # torch multiplies by the rate after the momentum
    same("rmsprop-nesterov", "rmsprop", momentum=0.7, nesterov=True),
    same("adam", "adam", torch_optimizer("Adam")),
    same("adam-all-numbers", "adam", b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4),
    same("adam-nesterov", "adam", nesterov=True),
    masked_adamw("adamw", is_kernel),
    masked_adamw("adamw-mask-true", lambda path: True, mask=True),
    masked_adamw("adamw-mask-false", lambda path: False, mask=False),
    masked_adamw("adamw-mask-glob", lambda path: path == "bias", mask="b*"),
    masked_adamw("adamw-mask-globs", lambda path: True, mask=("bias", "ker*")),
    masked_adamw("adamw-mask-callable", is_kernel, mask=kernels),
    Case(
        "adamw-scheduled-decay",
        lambda library, rate: library.adamw(
            rate,
            weight_decay=decay_schedule(nn.schedules),
            mask=kernels,
        ),
        lambda rate, path: decayed_by_rate(
            reference.adam(rate), decay_schedule(reference_schedules), rate
        ),
    ),
    same("adamw-nesterov", "adamw", nesterov=True, weight_decay=DECAY)._replace(
        optax=lambda optax, rate: optax.adamw(rate, nesterov=True, weight_decay=DECAY, mask=kernels)
    ),
    Case(
        "clip-sgd",
        lambda library, rate: library.chain(library.clip(0.5), library.sgd(rate, 0.8)),
        lambda rate, path: reference.sgd(rate, 0.8),
        clipped,
    ),
    Case(
        "clip_by_global_norm-adam",
        lambda library, rate: library.chain(library.clip_by_global_norm(0.5), library.adam(rate)),
        lambda rate, path: reference.adam(rate),
        clipped_by_global_norm,
    ),
    Case(
        "add_decayed_weights-sgd",
        lambda library, rate: library.chain(
            library.add_decayed_weights(DECAY, mask=kernels), library.sgd(rate, 0.8)
        ),
        lambda rate, path: reference.sgd(rate, 0.8),
        with_decayed_weights,
        torch=torch_decaying("SGD", is_kernel, momentum=0.8),
    ),
    Case(
        "trace",
        lambda library, rate: library.chain(library.trace(0.8, True), descend_by(library, rate)),
        lambda rate, path: reference.sgd(rate, 0.8, nesterov=True),
    ),
    Case(
        "scale_by_adam",
        lambda library, rate: library.chain(
            library.identity(), library.scale_by_adam(), library.scale_by_learning_rate(rate)
        ),
        lambda rate, path: reference.adam(rate),
    ),
    Case(
        "scale_by_rms",
        lambda library, rate: library.chain(library.scale_by_rms(), descend_by(library, rate)),
        lambda rate, path: reference.rmsprop(rate),
        rate=rate_of("rmsprop"),
    ),
    Case(
        "scale_by_stddev",
        lambda library, rate: library.chain(
            library.scale_by_stddev(eps=1e-3),
            library.scale_by_learning_rate(rate, flip_sign=False),
            library.scale(-1.0),
        ),
        lambda rate, path: reference.rmsprop(rate, centered=True, eps=1e-3),
        rate=rate_of("rmsprop"),
    ),
]

# Variants of what the others are.
SLOW = {
    "sgd-averaged-nesterov",
    "rmsprop-all-numbers",
    "rmsprop-eps-outside",
    "rmsprop-corrected",
    "rmsprop-centered-eps-outside",
    "rmsprop-centered-corrected-momentum",
    "rmsprop-nesterov",
    "adam-all-numbers",
    "adamw-mask-true",
    "adamw-mask-false",
    "adamw-mask-globs",
    "adamw-mask-callable",
    "adamw-nesterov",
    "trace",
    "scale_by_adam",
    "scale_by_rms",
    "scale_by_stddev",
}

CASES = [case._replace(slow=case.name in SLOW) for case in ROWS]
