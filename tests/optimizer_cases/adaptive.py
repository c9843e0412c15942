"""The rows of the optimizers with a learning rate for each element."""

from typing import Any

import jax

import jaxnn as nn
from tests.numpy_reference import optimizers_adaptive as reference
from tests.numpy_reference import schedules as reference_schedules
from tests.optimizer_cases.case import (
    DECAY,
    Case,
    decayed_by_rate,
    decaying,
    decaying_all,
    is_kernel,
    part,
    rate_of,
    same,
    slowly,
    torch_decaying,
    torch_optimizer,
)

NUMBERS = {"b1": 0.8, "b2": 0.95, "eps": 1e-3}

# torch's NAdam warms b1 up, as slowly as `momentum_decay` is small.
AT_ONCE = {"momentum_decay": 1e9}


def rising(library: Any) -> Any:
    """A schedule for other hyperparameters than rates, from 1 to 0.5."""
    return library.cosine_decay_schedule(1.0, 100, 0.5)


def ademamix_with_schedules(library: Any, schedules: Any, rate: Any) -> Any:
    schedule = rising(schedules)
    return library.ademamix(
        rate,
        b3=lambda count: 0.9 * schedule(count),
        alpha=lambda count: 3.0 * schedule(count),
    )


def squares() -> Any:
    """An estimate of the curvature: the squares of the gradients."""
    return nn.optimizers.Optimizer(
        init=lambda params: (),
        update=lambda g, state, params=None, **extra: (jax.tree.map(lambda x: x * x, g), state),
    )


def sophia(name: str, **kwargs: Any) -> Case:
    """A row of sophia, whose curvature is that of `squares`."""
    case = decaying(
        name, "sophia", None, "weight_decay_mask", hessian_diagonal_fn=squares(), **kwargs
    )
    return case._replace(
        numpy=lambda rate, path: reference.sophia(
            rate, weight_decay=DECAY, hessian_diagonal=lambda g: g * g, **kwargs
        )
    )


CASES = [
    same("adagrad", "adagrad"),
    same(
        "adagrad-of-torch",
        "adagrad",
        torch_optimizer("Adagrad"),
        initial_accumulator_value=0.0,
        eps=1e-10,
        eps_in_sqrt=False,
    )._replace(in_optax=False),
    same("adadelta", "adadelta", torch_optimizer("Adadelta")),
    same("amsgrad", "amsgrad"),
    same("adam-amsgrad", "adam", torch_optimizer("Adam", amsgrad=True), amsgrad=True)._replace(
        numpy=lambda rate, path: reference.amsgrad(rate, maximum_first=True), in_optax=False
    ),
    same("adamax", "adamax", torch_optimizer("Adamax")),
    decaying("adamaxw", "adamaxw"),
    same("nadam", "nadam", torch_optimizer("NAdam", **AT_ONCE)),
    decaying(
        "nadamw",
        "nadamw",
        torch_decaying("NAdam", is_kernel, decoupled_weight_decay=True, **AT_ONCE),
    ),
    same("radam", "radam"),
    same("radam-eps-zero", "radam", torch_optimizer("RAdam", eps=0.0), eps=0.0),
    same("adabelief", "adabelief"),
    same("yogi", "yogi"),
    # optax has 1 - b2 where b2 should be.
    decaying("adan", "adan")._replace(in_optax=False),
    decaying("adan-half", "adan", b2=0.5),
    same("adopt", "adopt"),
    decaying("ademamix", "ademamix"),
    sophia("sophia"),
    decaying_all("prodigy", "prodigy")._replace(joint=True),
    *slowly(
        same("adagrad-numbers", "adagrad", initial_accumulator_value=0.5, eps=1e-2),
        decaying(
            "adadelta-decay",
            "adadelta",
            torch_decaying("Adadelta", is_kernel, rho=0.8, eps=1e-4),
            "weight_decay_mask",
            rho=0.8,
            eps=1e-4,
        )._replace(rate=0.1),
        same("adadelta-no-rate", "adadelta")._replace(
            make=lambda library, rate: library.adadelta(),
            numpy=lambda rate, path: reference.adadelta(),
            optax=lambda optax, rate: optax.chain(optax.adadelta(), optax.scale(-1.0)),
        ),
        same("amsgrad-numbers", "amsgrad", **NUMBERS, eps_root=1e-4),
        same("amsgrad-uncorrected", "amsgrad", bias_correction_mu=False, bias_correction_nu=False),
        Case(
            "adamw-amsgrad",
            lambda library, rate: library.adamw(rate, weight_decay=DECAY, amsgrad=True),
            lambda rate, path: decayed_by_rate(
                reference.amsgrad(rate, maximum_first=True), lambda count: DECAY, rate
            ),
            in_optax=False,
            torch=torch_decaying("AdamW", is_kernel, amsgrad=True),
        ),
        same("adamax-numbers", "adamax", **NUMBERS),
        decaying("adamaxw-mask-true", "adamaxw", mask=True)._replace(
            numpy=lambda rate, path: reference.adamaxw(rate, weight_decay=DECAY, decay_all=True),
            optax=lambda optax, rate: optax.adamaxw(rate, weight_decay=DECAY),
        ),
        same("nadam-numbers", "nadam", **NUMBERS, eps_root=1e-4),
        same("radam-numbers", "radam", **NUMBERS, eps_root=1e-4, threshold=4.5),
        same("radam-never", "radam", b2=0.5),
        same("radam-nesterov", "radam", nesterov=True),
        same("adabelief-numbers", "adabelief", **NUMBERS, eps_root=1e-4),
        same("adabelief-nesterov", "adabelief", nesterov=True),
        same("yogi-numbers", "yogi", b1=0.8, b2=0.95, eps=1e-2),
        same("adopt-nesterov", "adopt", nesterov=True, use_clipping=False),
        same("adopt-numbers", "adopt", b1=0.8, b2=0.95, clip_value_fn=lambda count: 0.5)._replace(
            rate=0.01
        ),
        Case(
            "ademamix-schedules",
            lambda library, rate: ademamix_with_schedules(
                library if hasattr(library, "ademamix") else library.contrib, nn.schedules, rate
            ),
            lambda rate, path: ademamix_with_schedules(reference, reference_schedules, rate),
        ),
        sophia(
            "sophia-numbers", b1=0.8, b2=0.9, gamma=0.1, clip_threshold=0.5, update_interval=3
        )._replace(rate=0.001),
        sophia("sophia-unclipped", gamma=0.1, eps=1e-1, clip_threshold=None),
        same("prodigy-warmup", "prodigy", safeguard_warmup=True, estim_lr0=1e-3)._replace(
            joint=True
        ),
        same(
            "prodigy-numbers", "prodigy", betas=(0.8, 0.95), estim_lr0=1e-3, estim_lr_coef=0.5
        )._replace(rate=0.1, joint=True),
    ),
    part("scale_by_rss", reference.adagrad),
    part("scale_by_adadelta", reference.adadelta)._replace(rate=1.0),
    part("scale_by_amsgrad", reference.amsgrad),
    part("scale_by_adamax", reference.adamax),
    part("scale_by_radam", reference.radam),
    part("scale_by_belief", reference.adabelief),
    part(
        "scale_by_yogi",
        lambda rate: reference.yogi(rate, eps_root=1e-4, initial=0.1),
        eps_root=1e-4,
        initial_accumulator_value=0.1,
    ),
    part("scale_by_adan", lambda rate: reference.adan(rate, b2=0.5, eps_root=0.0), b2=0.5),
    part("scale_by_adopt", reference.adopt),
    part("scale_by_ademamix", lambda rate: reference.ademamix(rate, alpha=6.0)),
    part(
        "scale_by_sophia",
        lambda rate: reference.sophia(rate, weight_decay=0.0, hessian_diagonal=lambda g: g * g),
        hessian_diagonal_fn=squares(),
    )._replace(in_optax=False, rate=rate_of("sophia")),
]
