"""Layers on meshes and inside `jax.shard_map`, in a program of the user's own."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxnn as nn
from tests.parameters import each_value_once
from tests.places import SPLIT, arguments_of, mesh_of, placed
from tests.scripts import on_devices
from tests.table import LAYERS

# Gathers, reshapes, rules of their own and scans that begin with zeros, of which JAX cannot tell
# how their results lie; of other layers it can.
OF_INTEREST = {
    "attention_rotary_groups",
    "conv",
    "conv_transpose",
    "depthwise_conv",
    "embedding",
    "mixture_of_experts_capacity",
    "pixel_shuffle2__2",
    "recurrent_gru",
    "recurrent_lstm",
    "upsample3__2__method-linear",
    "vector_quantizer",
}
ROWS = {row.name: row for row in LAYERS}


@each_value_once
@pytest.mark.parametrize("place", ["explicit", "shard_map"])
@pytest.mark.parametrize("name", sorted(OF_INTEREST))
def test_the_gradient_of_a_layer_can_be_traced(name, place):
    """A mesh of one device has all the types that one of many has."""
    row = ROWS[name]
    layer, params, state, x = arguments_of(row)
    function, lay = placed(row, layer, True, place)
    result = jax.eval_shape(function, *lay((params, state, x)))
    assert result[0][0].shape == ()


def test_results_on_an_explicit_mesh_lie_as_their_examples():
    row = ROWS["conv"]
    layer, params, state, x = arguments_of(row)
    x = jax.device_put(x, NamedSharding(mesh_of(AxisType.Explicit), SPLIT))
    types = jax.eval_shape(lambda x: layer.apply(params, state, x)[0], x)
    assert types.sharding.spec == PartitionSpec("data", *[None] * (x.ndim - 1))


SCORES, LABELS = np.zeros((4, 3), np.float32), np.zeros(4, np.int32)


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (nn.losses.ntxent, (SCORES, LABELS)),
        (nn.losses.clip_loss, (SCORES, SCORES)),
        (nn.losses.quantile_loss, (SCORES, SCORES, SCORES)),
        (nn.losses.ctc_loss, (SCORES[:, None], SCORES[:, :1], LABELS[:, None], SCORES[:, :1])),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_gradient_of_a_loss_over_pairs_or_frames_can_be_traced(loss, arguments):
    sharding = NamedSharding(mesh_of(AxisType.Explicit), SPLIT)
    jax.eval_shape(jax.grad(lambda *x: loss(*x).sum()), *jax.device_put(arguments, sharding))


@pytest.mark.slow
def test_every_layer_on_two_devices_is_that_on_one():
    on_devices(2, "places")
