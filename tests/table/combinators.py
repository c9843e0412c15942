"""Layers made of layers."""

import jax.numpy as jnp

import jaxnn as nn
from jaxnn._core.layer import param_dtype
from tests import composed_reference as composed
from tests.numpy_reference import further_activations
from tests.table.rows import LayerRow


def shared_twice(f, x):
    """Call one child twice, which shares its parameters."""
    return f.shared(nn.tanh(f.shared(x)))


def norm_around_dropout(f, x):
    """Call a child with state twice, and one that is random between the two."""
    return f.norm(nn.tanh(f.drop(f.norm(x))))


def slopes(key, x):
    """Make a slope for each channel."""
    return {"slope": jnp.full(x.shape[-1], 0.3, param_dtype(x))}


def leaky(params, x):
    """Multiply negative numbers by a slope."""
    return nn.functional.prelu(x, params["slope"])


LAYERS = (
    LayerRow(
        "pure",
        "pure(slopes, leaky)",
        lambda: nn.pure(slopes, leaky),
        reference=composed.of_function(further_activations.prelu, "slope"),
    ),
    LayerRow(
        "elementwise", "elementwise(tanh)", lambda: nn.elementwise(nn.tanh), reference=composed.tanh
    ),
    LayerRow(
        "serial_positional",
        "serial(dense(5), batch_norm(), tanh, dense(2))",
        lambda: nn.serial(nn.dense(5), nn.batch_norm(), nn.tanh, nn.dense(2)),
        reference=composed.serial(
            **{
                "0": composed.linear,
                "1": composed.batch_norm(-1),
                "2": composed.tanh,
                "3": composed.linear,
            }
        ),
        has_state=True,
        couples_examples=(True,),
    ),
    LayerRow(
        "serial_named",
        "serial(hidden=dense(5), tanh=tanh, out=dense(2))",
        lambda: nn.serial(hidden=nn.dense(5), tanh=nn.tanh, out=nn.dense(2)),
        reference=composed.serial(hidden=composed.linear, tanh=composed.tanh, out=composed.linear),
    ),
    LayerRow(
        "parallel_positional",
        "parallel(dense(2), tanh)",
        lambda: nn.parallel(nn.dense(2), nn.tanh),
        reference=composed.parallel(**{"0": composed.linear, "1": composed.tanh}),
    ),
    LayerRow(
        "parallel_named",
        "parallel(value=dense(1), norm=batch_norm())",
        lambda: nn.parallel(value=nn.dense(1), norm=nn.batch_norm()),
        reference=composed.parallel(value=composed.linear, norm=composed.batch_norm(-1)),
        has_state=True,
        couples_examples=(True,),
    ),
    LayerRow(
        "residual",
        "residual(layer_norm())",
        lambda: nn.residual(nn.layer_norm()),
        reference=composed.residual(composed.layer_norm(-1)),
    ),
    LayerRow(
        "residual_shortcut",
        "residual(dense(3), shortcut=dense(3, use_bias=False))",
        lambda: nn.residual(nn.dense(3), shortcut=nn.dense(3, use_bias=False)),
        reference=composed.residual(composed.linear, composed.linear),
    ),
    LayerRow(
        "compose_shared",
        "compose(shared_twice, shared=dense(6))",
        lambda: nn.compose(shared_twice, shared=nn.dense(6)),
        ((4, 6), (2, 5, 6)),
        composed.twice,
    ),
    LayerRow(
        "compose_stateful",
        "compose(norm_around_dropout, norm=batch_norm(), drop=dropout(0.5))",
        lambda: nn.compose(norm_around_dropout, norm=nn.batch_norm(), drop=nn.dropout(0.5)),
        is_random=True,
        has_state=True,
    ),
    LayerRow(
        "stack",
        "stack(residual(serial(dense(6), dropout(0.5))), 3)",
        lambda: nn.stack(nn.residual(nn.serial(nn.dense(6), nn.dropout(0.5))), 3),
        ((4, 6), (6,)),
        composed.stack(
            3,
            composed.residual(
                composed.serial(**{"0": composed.linear, "1": composed.dropout_layer(0.5)})
            ),
        ),
        is_random=True,
        bfloat16_tolerance=0.3,
    ),
    LayerRow(
        "stack_stateful",
        "stack(serial(dense(4), batch_norm()), 2)",
        lambda: nn.stack(nn.serial(nn.dense(4), nn.batch_norm()), 2),
        ((6, 4),),
        composed.stack(2, composed.serial(**{"0": composed.linear, "1": composed.batch_norm(-1)})),
        has_state=True,
        couples_examples=(True,),
    ),
    LayerRow(
        "ensemble",
        "ensemble(serial(dense(3), batch_norm(), dropout(0.5)), 3)",
        lambda: nn.ensemble(nn.serial(nn.dense(3), nn.batch_norm(), nn.dropout(0.5)), 3),
        reference=composed.ensemble(
            3,
            composed.serial(
                **{
                    "0": composed.linear,
                    "1": composed.batch_norm(-1),
                    "2": composed.dropout_layer(0.5),
                }
            ),
        ),
        is_random=True,
        has_state=True,
    ),
    LayerRow(
        "frozen",
        "frozen(serial(dense(5), batch_norm(), tanh, dropout(0.5)))",
        lambda: nn.frozen(nn.serial(nn.dense(5), nn.batch_norm(), nn.tanh, nn.dropout(0.5))),
        reference=composed.frozen(
            composed.serial(
                **{
                    "0": composed.linear,
                    "1": composed.batch_norm(-1),
                    "2": composed.tanh,
                    "3": composed.dropout_layer(0.5),
                }
            )
        ),
        has_state=True,
        keeps_state=True,
    ),
    LayerRow(
        "remat",
        "remat(serial(dense(5), batch_norm(), dropout(0.5)))",
        lambda: nn.remat(nn.serial(nn.dense(5), nn.batch_norm(), nn.dropout(0.5))),
        reference=composed.serial(
            **{
                "0": composed.linear,
                "1": composed.batch_norm(-1),
                "2": composed.dropout_layer(0.5),
            }
        ),
        is_random=True,
        has_state=True,
    ),
)

FUNCTIONS = ()
