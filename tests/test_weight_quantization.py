"""Kernels as integers: against NumPy, trained around, trained for, imported and saved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

RNG = np.random.default_rng(0)
X = RNG.standard_normal((16, 6)).astype(np.float32)
X += 3 * X[:, :1]  # correlated, so that errors of rounding add up
TARGET = X @ RNG.standard_normal((6, 4)).astype(np.float32)
ADAM = nn.optimizers.adam(nn.schedules.cosine_decay_schedule(0.05, 200))
DTYPES = pytest.mark.parametrize(("dtype", "most"), [("int8", 127), ("int4", 7)])


def by_hand(kernel, most, axes=None):
    """Integers and scales in NumPy: each output has the largest of its weights as `most`."""
    axes = tuple(range(kernel.ndim - 1)) if axes is None else axes
    largest = np.abs(kernel.astype(np.float64)).max(axes, keepdims=True)
    scale = np.where(largest == 0, 1, largest / most)
    return np.round(kernel / scale), scale


def drawn(layer, x=X):
    """Normal parameters, biases too."""
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    return jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), p.dtype), params), state


def equal(got, expected):
    """Compare two trees bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@DTYPES
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        pytest.param(nn.dense(5), (3, 6), id="dense"),
        pytest.param(nn.conv(4, (3, 2)), (2, 5, 4, 3), id="conv", marks=pytest.mark.slow),
    ],
)
def test_against_numpy(layer, shape, dtype, most):
    x = RNG.standard_normal(shape).astype(np.float32)
    params, state = drawn(layer, x)
    small, small_state = nn.quantize_params(params, state, dtype=dtype)
    integers, scale = by_hand(np.asarray(params["kernel"]), most)
    assert small_state["integers"]["kernel"].dtype == dtype
    np.testing.assert_array_equal(small_state["integers"]["kernel"].astype(np.float32), integers)
    np.testing.assert_allclose(small_state["scale"]["kernel"], scale, 1e-6)
    np.testing.assert_array_equal(np.abs(integers).max(tuple(range(integers.ndim - 1))), most)
    expected = params | {"kernel": jnp.asarray(integers * scale, jnp.float32)}
    y, new_state = nn.quantized(layer, dtype).apply(small, small_state, x)
    np.testing.assert_allclose(y, layer.apply(expected, {}, x)[0], 1e-5, 1e-5)
    equal(new_state, small_state)


@DTYPES
def test_no_weight_is_off_by_more_than_half_a_step(dtype, most):
    kernel = RNG.normal(size=(50, 8)) * 10.0 ** np.arange(-4, 4)
    params = {"kernel": jnp.asarray(kernel, jnp.float32)}
    back, _ = nn.dequantize_params(*nn.quantize_params(params, dtype=dtype))
    step = np.abs(kernel).max(0) / most
    assert np.all(np.abs(back["kernel"] - kernel) <= step / 2 * 1.0001)


def test_an_output_of_zeros_stays_zero_and_nan_stays_nan():
    kernel = jnp.array([[0.0, 1.0, jnp.nan], [0.0, -2.0, 1.0]])
    back, _ = nn.dequantize_params(*nn.quantize_params({"kernel": kernel}))
    np.testing.assert_allclose(back["kernel"][:, :2], kernel[:, :2], atol=0.01)
    assert np.isnan(back["kernel"][:, 2]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtypes(dtype, x64):
    layer, x = nn.quantized(nn.dense(3)), jax.ShapeDtypeStruct((1, 4), dtype)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    wide = "float64" if dtype == "float64" else "float32"
    assert state["scale"]["kernel"].dtype == params["bias"].dtype == wide
    assert jax.eval_shape(layer.apply, params, state, x)[0].dtype == dtype


def trunk():
    """Layers with a state of their own, of several ranks."""
    return nn.serial(nn.dense(8), nn.batch_norm(), nn.relu, nn.dense(4))


@pytest.mark.parametrize(
    "wrap",
    [
        nn.mixed_precision,
        pytest.param(nn.remat, marks=pytest.mark.slow),
        pytest.param(nn.frozen, marks=pytest.mark.slow),
    ],
)
def test_init_and_the_pure_function_give_the_trees_that_apply_takes(wrap):
    layer = wrap(nn.quantized(trunk()))
    params, state = fast_jit(layer.init)(jax.random.key(0), X)
    y, new_state = fast_jit(layer.apply)(params, state, X)
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert y.shape == (16, 4)
    made = jax.eval_shape(nn.quantized(trunk()).init, jax.random.key(0), X)
    plain = jax.eval_shape(trunk().init, jax.random.key(0), X)
    assert jax.eval_shape(nn.quantize_params, *plain) == made


def test_the_state_of_the_layer_moves_in_training():
    layer = nn.quantized(trunk())
    params, state = fast_jit(layer.init)(jax.random.key(0), X)
    _, after = fast_jit(lambda *args: layer.apply(*args, train=True))(params, state, X)
    assert np.any(after["state"]["1"]["mean"] != state["state"]["1"]["mean"])
    equal(after["integers"], state["integers"])


def test_paths_and_back():
    model = nn.serial(trunk=trunk(), head=nn.dense(2))
    params, state = fast_jit(model.init)(jax.random.key(0), X)
    small = nn.quantize_params(params, state, ["trunk/0", "head"], dtype="int4")
    back = nn.dequantize_params(*small, ["head", "trunk/0"])
    assert jax.tree.structure(back) == jax.tree.structure((params, state))
    again = nn.quantize_params(*back, ["trunk/0", "head"], dtype="int4")
    equal(again[1]["head"]["integers"], small[1]["head"]["integers"])


def test_axis_and_where():
    params, state = drawn(nn.embedding(7, 4), jnp.zeros(1, jnp.int32))
    small, small_state = nn.quantize_params(params, state, axis=0, where="embedding")
    integers, scale = by_hand(np.asarray(params["embedding"]), 127, (1,))
    np.testing.assert_array_equal(small_state["integers"]["embedding"], integers)
    layer = nn.quantized(nn.embedding(7, 4), axis=0, where="embedding")
    y, _ = layer.apply(small, small_state, jnp.arange(7))
    np.testing.assert_allclose(y, integers * scale, 1e-6)


def test_in_a_stack_each_layer_has_its_scales():
    stack = nn.stack(nn.quantized(nn.dense(6)), 3)
    params, state = jax.eval_shape(stack.init, jax.random.key(0), X)
    assert state["scale"]["kernel"].shape == (3, 1, 6)
    assert jax.eval_shape(stack.apply, params, state, X)[1] == state


# Training around it


def fit(model, params, state, optimizer, epochs=30):
    """Train on a linear map that the model does not know."""
    return nn.fit(
        model,
        (X, TARGET),
        loss=nn.losses.squared_error,
        optimizer=optimizer,
        key=jax.random.key(1),
        epochs=epochs,
        params=params,
        state=state,
        progress=False,
    )


@pytest.mark.slow
def test_lora_trains_a_correction_on_a_quantised_base(tmp_path):
    """Imported, quantised, adapted, merged: the integers do not move."""
    names = {"hidden": "fc1", "out": "fc2"}
    plain = nn.serial(hidden=nn.dense(8), out=nn.dense(4))
    pretrained, _ = drawn(plain)
    nn.export_params(tmp_path, pretrained, names)
    imported = nn.import_params(
        tmp_path, jax.eval_shape(plain.init, jax.random.key(0), X)[0], names
    )

    def adapted(features):
        return nn.lora(nn.quantized(nn.dense(features), "int4"), 2)

    model = nn.serial(hidden=adapted(8), out=adapted(4))
    params, _ = fast_jit(model.init)(jax.random.key(2), X)
    params = {name: own | {"layer": imported[name]} for name, own in params.items()}
    params, state = nn.quantize_params(params, {}, ["hidden/layer", "out/layer"], dtype="int4")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.float32.dtype}
    result = fit(model, params, state, nn.optimizers.adamw(0.05, weight_decay=0.1))
    assert result.history["loss"][-1] < 0.7 * result.history["loss"][0]
    equal(result.state, state)
    y, _ = model.apply(result.params, result.state, X)
    whole, _ = nn.dequantize_params(result.params, result.state, ["hidden/layer", "out/layer"])
    merged, _ = plain.apply(nn.merge_lora(whole), {}, X)
    np.testing.assert_allclose(merged, y, 1e-4, 1e-4)


def test_merging_a_quantised_base_says_what_to_do_first():
    layer = nn.lora(nn.quantized(nn.dense(3)), 2)
    params, _ = jax.eval_shape(layer.init, jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"merge_lora: params .* nn.dequantize_params"):
        nn.merge_lora(params)


@DTYPES
def test_training_for_the_rounding(dtype, most):
    """The value is that of the rounded kernel, the gradient that of the kernel at that value."""
    learner, plain = nn.quantization_aware(nn.dense(4), dtype), nn.dense(4)
    params, _ = drawn(plain)
    small, state = nn.quantize_params(params, {}, dtype=dtype)

    def loss(layer):
        return lambda params: jnp.sum(jnp.sin(layer.apply(params, {}, X)[0]))

    rounded, _ = nn.dequantize_params(small, state)
    value, grads = jax.value_and_grad(loss(learner))(params)
    expected, of_rounded = jax.value_and_grad(loss(plain))(rounded)
    equal(value, expected)
    equal(grads, of_rounded)
    y, _ = nn.quantized(nn.dense(4), dtype).apply(small, state, X)
    equal(learner.apply(params, {}, X)[0], y)


@pytest.mark.slow
def test_training_for_int4_is_better_than_rounding_afterwards():
    plain, small = nn.dense(4), nn.quantized(nn.dense(4), "int4")
    params, state = fast_jit(plain.init)(jax.random.key(0), X)
    losses = []
    for layer in (nn.quantization_aware(plain, "int4"), plain):
        result = fit(layer, params, state, ADAM, 200)
        y, _ = small.apply(*nn.quantize_params(result.params, dtype="int4"), X)
        losses.append(np.mean((y - TARGET) ** 2))
    assert losses[0] < 0.9 * losses[1]


def test_saving(tmp_path):
    made = fast_jit(nn.quantized(trunk(), "int4").init)(jax.random.key(0), X)
    nn.save(tmp_path / "small.safetensors", made)
    equal(nn.load(tmp_path / "small.safetensors", made), made)


@pytest.mark.parametrize("constructor", [nn.quantized, nn.quantization_aware])
def test_errors(constructor):
    name = constructor.__name__
    with pytest.raises(ValueError, match=f"{name}: dtype is 'int2', expected 'int8' or 'int4'"):
        constructor(nn.dense(2), "int2")
    for options, message in (
        ({"where": "bias"}, "where chooses 'bias' of shape"),
        ({"where": "absent"}, "where"),
        ({"axis": 2}, "axis 2 is out of range for a kernel"),
    ):
        layer = constructor(nn.dense(2), **options)
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            layer.apply(*layer.init(jax.random.key(0), X), X)
    with pytest.raises(ValueError, match=r"dequantize_params: path is '', .* a quantised one"):
        nn.dequantize_params(*nn.dense(2).init(jax.random.key(0), X))
    with pytest.raises(ValueError, match="lacks 'integers/kernel'"):
        nn.quantized(nn.dense(2)).apply({"bias": jnp.zeros(2)}, {}, X)
