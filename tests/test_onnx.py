"""What jax2onnx makes of each layer, and whether ONNX Runtime computes the same."""

import jax
import numpy as np
import pytest

from tests import table
from tests.table import LAYERS, draw_layer

FAMILIES = (
    table.dense,
    table.embeddings,
    table.normalization,
    table.convolution,
    table.pooling,
    table.resampling,
    table.dropout,
    table.attention,
    table.positions,
)
RECURRENT = ("recurrent_lstm", "recurrent_conv_lstm", "recurrent_stack")
ROWS = [row for family in FAMILIES for row in family.LAYERS]
ROWS += [row for row in LAYERS if row.name in RECURRENT]
NOT_CONVERTED = {
    "attention_rotary_groups": "the shape of a causal query as a tracer",
    "conv_transpose": "a convolution whose kernel has its channels swapped",
    "conv_transpose_options": "a convolution whose kernel has its channels swapped",
    "upsample3__2__method-linear": "shapes that ONNX Runtime refuses",
}


@pytest.fixture
def default_platform(monkeypatch):
    """No forms for CPU: jax2onnx knows no choice by platform."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *a, default, **_: default(*a))
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "row", [pytest.param(r, id=r.name) for r in ROWS if r.name not in NOT_CONVERTED]
)
def test_onnx_runtime_computes_the_same(row, default_platform, tmp_path):
    to_onnx = pytest.importorskip("jax2onnx").to_onnx
    runtime = pytest.importorskip("onnxruntime")
    layer, params, state, x = draw_layer(row)

    def apply(x):
        return layer.apply(params, state, x)[0]

    path = str(tmp_path / "model.onnx")
    lenient = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with jax.debug_key_reuse(False), lenient[0], lenient[1]:
        to_onnx(apply, [x], return_mode="file", output_path=path)
    session = runtime.InferenceSession(path)
    got = session.run(None, {session.get_inputs()[0].name: x})
    for one, expected in zip(got, jax.tree.leaves(apply(x)), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)
