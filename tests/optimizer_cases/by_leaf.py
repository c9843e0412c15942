"""The rows of the optimizers that look at a whole leaf: its norm, its rows and columns."""

from typing import Any

import numpy as np

from tests.numpy_reference import optimizers as first_reference
from tests.numpy_reference import optimizers_by_leaf as reference
from tests.optimizer_cases.case import (
    DECAY,
    Case,
    decaying,
    decaying_all,
    kernels,
    part,
    rate_of,
    same,
    slowly,
    torch_optimizer,
)

FACTORED = {"min_dim_size_to_factor": 2}


def widest_decay(count: Any, exponent: float) -> Any:
    """optax computes it in float32, where there is float64 too."""
    return 1.0 - (count + 1).astype(float) ** -exponent


def adafactor_of_optax(optax: Any, rate: Any, *parts: Any) -> Any:
    """`optax.adafactor(rate, min_dim_size_to_factor=2)`, its decay in float64 if there is any."""
    return optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=2, decay_rate_fn=widest_decay),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_learning_rate(rate, flip_sign=False),
        optax.scale_by_param_block_rms(),
        *parts,
        optax.scale(-1.0),
    )


def decayed_adafactor(library: Any, rate: Any) -> Any:
    return library.adafactor(rate, momentum=0.8, weight_decay_rate=0.01, **FACTORED)


def shrunk_by_rms(gradients: dict, weights: dict) -> dict:
    return {p: g / max(1.0, np.sqrt(np.mean(g**2)) / 0.5) for p, g in gradients.items()}


def times_rms(gradients: dict, weights: dict) -> dict:
    return {p: g * max(0.5, np.sqrt(np.mean(weights[p] ** 2))) for p, g in gradients.items()}


def times_trust_ratio(gradients: dict, weights: dict) -> dict:
    def one(g: np.ndarray, w: np.ndarray) -> np.ndarray:
        return g * 0.5 * np.linalg.norm(w) / (np.linalg.norm(g) + 0.1)

    return {p: one(g, weights[p]) for p, g in gradients.items()}


def before_sgd(name: str, prepare: Any, *args: Any, **kwargs: Any) -> Case:
    """The row of a transformation of the gradients of gradient descent."""
    return Case(
        name,
        lambda library, rate: library.chain(
            getattr(library, name)(*args, **kwargs), library.sgd(rate)
        ),
        lambda rate, path: first_reference.sgd(rate),
        prepare,
    )


LARS = {"trust_coefficient": 0.1, "eps": 1e-3}

CASES = [
    decaying("lars", "lars", None, "weight_decay_mask", **LARS),
    decaying("lamb", "lamb"),
    decaying_all("novograd", "novograd"),
    same("adafactor", "adafactor", torch_optimizer("Adafactor"), **FACTORED)._replace(
        optax=adafactor_of_optax
    ),
    decaying("muon", "muon", None, "weight_decay_mask"),
    decaying("soap", "soap")._replace(in_optax=False),
    *slowly(
        Case(
            "lars-mask",
            lambda library, rate: library.lars(
                rate, trust_ratio_mask=kernels, nesterov=True, **LARS
            ),
            lambda rate, path: reference.lars(rate, scales=path == "kernel", nesterov=True, **LARS),
            rate=rate_of("lars"),
        ),
        decaying("lamb-numbers", "lamb", b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4),
        same("novograd-default-mask", "novograd", weight_decay=DECAY)._replace(in_optax=False),
        decaying_all("novograd-numbers", "novograd", b1=0.8, b2=0.9, eps=1e-2, eps_root=1e-3),
        Case(
            "adafactor-momentum",
            decayed_adafactor,
            lambda rate, path: reference.adafactor(
                rate, momentum=0.8, weight_decay_rate=0.01, **FACTORED
            ),
            optax=lambda optax, rate: adafactor_of_optax(
                optax,
                rate,
                optax.ema(0.8, debias=False),
                optax.add_decayed_weights(0.01, mask=kernels),
            ),
            rate=rate_of("adafactor"),
        ),
        same(
            "adafactor-unfactored",
            "adafactor",
            factored=False,
            multiply_by_parameter_scale=False,
            clipping_threshold=None,
            decay_rate=0.6,
        )._replace(in_optax=False),
        *(
            decaying(f"muon-{name}", "muon", None, "weight_decay_mask", **kwargs)
            for name, kwargs in {
                "plain": {"nesterov": False, "ns_steps": 3},
                "dion": {"ns_coeffs": ((4.0, -6.9, 2.9), (3.9, -6.3, 2.6)), "ns_steps": 2},
                "spectral": {"preconditioning": "spectral"},
                "aol": {"preconditioning": "aol"},
                "schatten": {"preconditioning": "schatten"},
                "adaptive": {"adaptive": True, "consistent_rms": 0.2},
                "two-rates": {"adam_learning_rate": 0.01},
            }.items()
        ),
        *(
            decaying(f"soap-{name}", "soap", **kwargs)._replace(in_optax=False)
            for name, kwargs in {
                "numbers": {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "precondition_frequency": 2},
                "one side": {"max_precond_dim": 2, "precondition_frequency": 3},
            }.items()
        ),
        before_sgd("clip_by_block_rms", shrunk_by_rms, 0.5),
        before_sgd("scale_by_param_block_rms", times_rms, 0.5),
        before_sgd("scale_by_trust_ratio", times_trust_ratio, 0.0, 0.5, 0.1),
    ),
    part(
        "scale_by_factored_rms",
        lambda rate: reference.adafactor(
            rate, clipping_threshold=None, multiply_by_parameter_scale=False, **FACTORED
        ),
        decay_rate_fn=widest_decay,
        **FACTORED,
    )._replace(rate=rate_of("adafactor")),
    part("scale_by_novograd", lambda rate: reference.novograd(rate, eps=1e-8))._replace(
        rate=rate_of("novograd")
    ),
    Case(
        "scale_by_soap",
        lambda library, rate: library.chain(
            library.scale_by_soap(eps=1e-3), library.scale_by_learning_rate(rate)
        ),
        lambda rate, path: reference.soap(rate, eps=1e-3),
        in_optax=False,
        rate=rate_of("soap"),
        slow=True,
    ),
    Case(
        "scale_by_muon",
        lambda library, rate: library.chain(
            library.masked(library.scale_by_muon(), kernels), library.scale_by_learning_rate(rate)
        ),
        lambda rate, path: reference.muon(rate) if path == "kernel" else first_reference.sgd(rate),
        in_optax=False,
        rate=rate_of("muon"),
        slow=True,
    ),
]
