"""The rows of the optimizers that go by the sign of the gradient."""

from typing import Any

from tests.numpy_reference import optimizers_by_sign as reference
from tests.optimizer_cases.case import Case, decaying, part, same, slowly, torch_optimizer


def rprop_of_optax(optax: Any, rate: float, *args: float) -> Any:
    """`optax.rprop` with the update that it keeps; what it returns is that of the step before."""
    stale = optax.scale_by_rprop(rate, *args)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = stale.update(updates, state, params)
        return state.prev_updates, state

    return optax.chain(optax.GradientTransformation(stale.init, update), optax.scale(-1.0))


CASES = [
    same("sign_sgd", "sign_sgd"),
    decaying("lion", "lion"),
    same("rprop", "rprop", torch_optimizer("Rprop"))._replace(
        optax=rprop_of_optax, schedules=False
    ),
    *slowly(
        decaying("lion-numbers", "lion", b1=0.8, b2=0.95),
        same(
            "rprop-numbers",
            "rprop",
            torch_optimizer("Rprop", etas=(0.4, 1.5), step_sizes=(1e-3, 0.3)),
            eta_minus=0.4,
            eta_plus=1.5,
            min_step_size=1e-3,
            max_step_size=0.3,
        )._replace(
            optax=lambda optax, rate: rprop_of_optax(optax, rate, 0.4, 1.5, 1e-3, 0.3),
            schedules=False,
        ),
        Case(
            "scale_by_rprop",
            lambda library, rate: library.chain(library.scale_by_rprop(rate), library.scale(-1.0)),
            lambda rate, path: reference.rprop(rate),
            in_optax=False,
            schedules=False,
        ),
    ),
    part("scale_by_sign", reference.sign_sgd),
    part("scale_by_lion", lambda rate: reference.lion(rate, weight_decay=0.0)),
    part(
        "scale_by_lion-smooth",
        lambda rate: reference.lion(rate, weight_decay=0.0, mode="smooth", smooth_beta=3.0),
        mode="smooth",
        smooth_beta=3.0,
    ),
    part(
        "scale_by_lion-refined",
        lambda rate: reference.lion(rate, weight_decay=0.0, mode="refined"),
        mode="refined",
    ),
]
