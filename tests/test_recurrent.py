"""What every cell promises, and how cells are stacked and run over sequences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.parameters import each_value_once, quick_first

CALLS = {
    "rnn": "rnn_cell(3, activation=relu)",
    "lstm": "lstm_cell(3)",
    "gru": "gru_cell(3)",
    "gru_reset_before": "gru_cell(3, reset_after=False)",
    "stacked": "stacked_cell(lower=lstm_cell(2), act=tanh, upper=gru_cell(2), out=dense(3))",
}
CELLS = {name: eval(call, vars(nn)) for name, call in CALLS.items()}
each_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
INPUTS = 4


ZEROS = nn.initializers.zeros  # as initial recurrent kernels: orthogonal ones take long to compile


def new_key(seed=0):
    """A key that no other call has used."""
    return jax.random.key(seed)


def normal(seed, *shape, dtype=np.float32):
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def normal_like(seed, tree):
    """A tree of normal numbers of the shapes and dtypes of `tree`."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(a.dtype), tree)


def abstract(tree):
    """Shapes and dtypes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def at(index, tree):
    """The same index of each leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def params_of(cell, inputs=INPUTS, seed=0):
    """Normal params of a cell, biases included."""
    x_t = jax.ShapeDtypeStruct((inputs,), np.float32)
    return normal_like(seed, jax.eval_shape(cell.init, new_key(), x_t))


def params_of_layer(layer, x):
    """Normal params of a layer."""
    return normal_like(0, jax.eval_shape(layer.init, new_key(), x)[0])


def assert_close(got, expected, tolerance=1e-6):
    """Compare two trees of arrays to rounding."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, rtol=tolerance, atol=tolerance)


def assert_equal(got, expected):
    """Compare two trees of arrays bit for bit."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


# Cells


@each_value_once
@each_cell
@pytest.mark.parametrize("batch_shape", [(), (5,), (2, 3)])
def test_a_step_keeps_the_carry_whatever_the_batch(cell, batch_shape):
    params = params_of(cell)
    carry = jax.eval_shape(lambda p: cell.initial_carry(p, batch_shape, jnp.float32), params)
    x_t = jax.ShapeDtypeStruct((*batch_shape, INPUTS), np.float32)
    new_carry, y = jax.eval_shape(cell.step, params, carry, x_t)
    assert new_carry == carry
    assert (y.shape, y.dtype) == ((*batch_shape, 3), np.float32)
    assert {leaf.shape[:-1] for leaf in jax.tree.leaves(carry)} == {batch_shape}


@each_value_once
@each_cell
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32"])
def test_dtypes_of_cells(cell, dtype, x64):
    x_t = jax.ShapeDtypeStruct((INPUTS,), dtype)
    wide = jnp.dtype("float64" if dtype in ("float64", "int32") else "float32")
    params = jax.eval_shape(cell.init, new_key(), x_t)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {wide}
    carry = jax.eval_shape(lambda p: cell.initial_carry(p, (), x_t.dtype), params)
    new_carry, y = jax.eval_shape(cell.step, params, carry, x_t)
    assert new_carry == carry
    assert y.dtype == (wide if dtype == "int32" else x_t.dtype)


@each_cell
def test_a_carry_of_another_dtype_keeps_it(cell):
    params = params_of(cell)
    carry = jax.eval_shape(lambda p: cell.initial_carry(p, (), jnp.float32), params)
    new_carry, y = jax.eval_shape(
        cell.step, params, carry, jax.ShapeDtypeStruct((INPUTS,), jnp.bfloat16)
    )
    assert new_carry == carry
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=name, marks=[] if name == "stacked" else pytest.mark.slow)
        for name, cell in CELLS.items()
    ],
)
def test_cells_jitted_vmapped_and_in_bfloat16_agree_with_a_loop(cell):
    params, x_t = params_of(cell), normal(1, 2, INPUTS)
    carry = normal_like(2, cell.initial_carry(params, (2,), jnp.float32))
    expected = cell.step(params, carry, x_t)

    @fast_jit
    def others(params, carry, x_t):
        step = functools.partial(cell.step, params)
        one_by_one = [step(at(i, carry), x_t[i]) for i in (0, 1)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
        low, y = step(carry, x_t.astype(jnp.bfloat16))
        return step(carry, x_t), jax.vmap(step)(carry, x_t), stacked, (low, y.astype(jnp.float32))

    *exact, rounded = others(params, carry, x_t)
    for got in exact:
        assert_close(got, expected)
    assert_close(rounded, expected, 0.1)


@pytest.mark.slow
@each_cell
def test_init_is_that_of_the_shape_and_differs_by_key(cell):
    params = cell.init(new_key(), jnp.zeros(INPUTS))
    assert abstract(params) == jax.eval_shape(cell.init, new_key(), jnp.zeros(INPUTS))
    assert_equal(cell.init(new_key(), jax.ShapeDtypeStruct((INPUTS,), np.float32)), params)
    other = cell.init(new_key(1), jnp.zeros(INPUTS))
    for one, two in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True):
        assert one.ndim == 1 or np.any(one != two)


@pytest.mark.parametrize("name", CELLS)
def test_repr_of_a_cell_is_the_call(name):
    assert repr(CELLS[name]) == CALLS[name]


@pytest.mark.parametrize(
    ("make", "gates"),
    [pytest.param(nn.gru_cell, 3, marks=pytest.mark.slow), (nn.lstm_cell, 4)],
)
def test_each_gate_is_drawn_by_itself(make, gates):
    params = make(32).init(new_key(), jnp.zeros(500))
    blocks = np.split(params["recurrent"]["kernel"], gates, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(32), atol=1e-5)
    kernels = np.split(params["input"]["kernel"], gates, axis=1)
    for kernel in kernels:
        np.testing.assert_allclose(np.var(kernel), 1 / 500, rtol=0.05)
    for drawn in (blocks, kernels):
        assert len({block.tobytes() for block in drawn}) == gates


def test_initializers_of_cells_get_the_shape_of_a_gate():
    shapes = []

    def record(key, shape, dtype=None, out_sharding=None):
        shapes.append(shape)
        return jnp.full(shape, len(shapes), dtype)

    options = dict.fromkeys(("kernel_init", "recurrent_kernel_init", "bias_init"), record)
    params = nn.gru_cell(2, **options).init(new_key(), jnp.zeros(5))
    assert shapes == [(5, 2)] * 3 + [(2, 2)] * 3 + [(2,)] * 4
    np.testing.assert_array_equal(params["input"]["kernel"][0], [1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(params["input"]["bias"], [7, 7, 8, 8, 9, 9])
    np.testing.assert_array_equal(params["recurrent"]["bias"], [10, 10])


@pytest.mark.parametrize("forget_bias", [0.0, 1.0, 2.5])
def test_forget_bias_is_in_the_params_and_not_in_the_step(forget_bias):
    cell = nn.lstm_cell(2, forget_bias=forget_bias, recurrent_kernel_init=ZEROS)
    params = cell.init(new_key(), jnp.zeros(3))
    expected = np.repeat([0, forget_bias, 0, 0], 2)
    np.testing.assert_array_equal(params["input"]["bias"], expected)
    zeros = jax.tree.map(jnp.zeros_like, params)
    (_, c), _ = cell.step(zeros, (jnp.zeros(2), jnp.ones(2)), jnp.zeros(3))
    np.testing.assert_allclose(c, 0.5)  # sigmoid(0)


@pytest.mark.parametrize("make", [nn.rnn_cell, nn.lstm_cell, nn.gru_cell])
def test_without_bias(make):
    options = {"recurrent_kernel_init": ZEROS}
    params = make(3, use_bias=False, **options).init(new_key(), jnp.zeros(4))
    assert {name: list(part) for name, part in params.items()} == {
        "input": ["kernel"],
        "recurrent": ["kernel"],
    }
    with_zeros = make(3, bias_init=ZEROS, **options).init(new_key(), jnp.zeros(4))
    biases = [part.pop("bias", None) for part in with_zeros.values()]
    assert_equal(params, with_zeros)
    assert (biases[1] is not None) == (make is nn.gru_cell)


def test_lstm_in_bfloat16_counts_beyond_256():
    always = np.array([30.0, 30, 0, 30], np.float32)
    params = {
        "input": {"kernel": np.array([[0, 0, 30, 0]], np.float32), "bias": always},
        "recurrent": {"kernel": np.zeros((1, 4), np.float32)},
    }
    layer = nn.recurrent(nn.lstm_cell(1), return_carry=True)
    (_, (h, c)), _ = layer.apply(params, {}, jnp.ones((1, 1000, 1), jnp.bfloat16))
    assert (h.dtype, c.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(c, [[1000]])


def test_gru_in_bfloat16_moves_by_small_steps():
    slowly = np.array([0, 5.0, 20.0], np.float32)  # h' = (1 - z) + z h with 1 - z = 0.0067
    params = {
        "input": {"kernel": np.zeros((1, 3), np.float32), "bias": slowly},
        "recurrent": {"kernel": np.zeros((1, 3), np.float32), "bias": np.zeros(1, np.float32)},
    }
    layer = nn.recurrent(nn.gru_cell(1), last=True)
    y, _ = layer.apply(params, {}, jnp.zeros((1, 1000, 1), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), 1, atol=0.01)  # stays at 0.5 in bfloat16


def test_resets_before_and_after_agree_where_they_commute():
    x, h, kernel = normal(0, 5, 4), normal(1, 5, 3), normal(2, 4, 9)
    gates, bias = normal(3, 3, 6), normal(4, 9)

    def both(candidate):
        recurrent = np.concatenate([gates, candidate], axis=1)
        return [
            nn.functional.gru_step(x, h, kernel, recurrent, bias, reset_after=after)
            for after in (True, False)
        ]

    np.testing.assert_allclose(*both(np.diag(normal(5, 3))), rtol=1e-5)
    after, before = both(normal(6, 3, 3))
    assert np.abs(after - before).max() > 0.1


def test_update_gate_is_the_weight_of_the_old():
    def step(update):
        bias = jnp.array([0.0, update, 20.0])
        kernels = jnp.zeros((1, 3)), jnp.zeros((1, 3))
        return nn.functional.gru_step(jnp.zeros(1), jnp.full(1, 0.25), *kernels, bias)

    np.testing.assert_allclose(step(30.0), 0.25)
    np.testing.assert_allclose(step(-30.0), 1)


# Images


def test_conv_lstm_of_single_pixels_is_an_lstm():
    x, params = x_and_params()
    images = jax.tree.map(lambda leaf: leaf[None] if leaf.ndim == 2 else leaf, params)
    cell = nn.conv_lstm_cell(3, (1,), (2,))
    video, carry = np.stack([x, -x], axis=2), {"return_carry": True}
    (ys, (h, c)), _ = nn.recurrent(cell, **carry).apply(images, {}, video)
    for pixel, sequence in enumerate((x, -x)):
        expected, after = run(sequence, params)
        assert_close((ys[:, :, pixel], (h[:, pixel], c[:, pixel])), (expected, after))


def test_conv_lstm_init():
    cell = nn.conv_lstm_cell(2, (3, 3), (5, 7))
    params = jax.eval_shape(cell.init, new_key(), jnp.zeros((5, 7, 1)))
    assert jax.tree.map(jnp.shape, params) == {
        "input": {"kernel": (3, 3, 1, 8), "bias": (8,)},
        "recurrent": {"kernel": (3, 3, 2, 8)},
    }
    carry = cell.initial_carry({}, (4,), jnp.bfloat16)
    assert [(leaf.shape, leaf.dtype) for leaf in carry] == [
        ((4, 5, 7, 2), jnp.bfloat16),
        ((4, 5, 7, 2), jnp.float32),
    ]
    cell = nn.conv_lstm_cell(2, (3,), (5,), recurrent_kernel_init=ZEROS, forget_bias=2.0)
    lines = cell.init(new_key(), jnp.zeros((5, 1)))
    np.testing.assert_array_equal(lines["input"]["bias"], np.repeat([0, 2, 0, 0], 2))


# Stacks

EMBEDDING = nn.Layer(
    lambda key, x: ({"embedding": jax.random.normal(key, (10, 6))}, {}),
    lambda params, state, x, *, key=None, train=False: (
        jnp.asarray(params["embedding"]).at[x].get(mode="fill", fill_value=jnp.nan),
        state,
    ),
)
CHARACTERS = nn.stacked_cell(
    embed=EMBEDDING, memory=nn.gru_cell(5), drop=nn.dropout(0.5), out=nn.dense(10)
)


def test_stack_is_its_cells_one_after_the_other():
    cell = CELLS["stacked"]
    params, x_t = params_of(cell), normal(1, 2, INPUTS)
    carry = normal_like(2, cell.initial_carry(params, (2,), jnp.float32))
    lower, y = nn.lstm_cell(2).step(params["lower"], carry["lower"], x_t)
    upper, y = nn.gru_cell(2).step(params["upper"], carry["upper"], nn.tanh(y))
    y = nn.functional.linear(y, **params["out"])
    assert_close(cell.step(params, carry, x_t), ({"lower": lower, "upper": upper}, y))


def test_stack_of_positional_cells_has_a_tuple_of_params():
    cell = nn.stacked_cell(nn.dense(2), nn.relu, nn.gru_cell(3))
    params = params_of(cell)
    assert [sorted(child) for child in params] == [["bias", "kernel"], [], ["input", "recurrent"]]
    assert list(cell.initial_carry(params, (), jnp.float32)) == ["2"]


def test_stack_of_stacks():
    inner = nn.stacked_cell(nn.rnn_cell(2), nn.rnn_cell(3))
    params = params_of(nn.stacked_cell(a=inner, b=nn.dense(1)))
    assert params["a"][1]["input"]["kernel"].shape == (2, 3)


def test_children_of_a_stack_have_keys_of_their_own():
    x_t, cell = jnp.zeros(4), nn.rnn_cell(4, recurrent_kernel_init=ZEROS)
    params = nn.stacked_cell(a=cell, b=cell).init(new_key(), x_t)
    assert np.any(params["a"]["input"]["kernel"] != params["b"]["input"]["kernel"])
    longer = nn.stacked_cell(a=cell, act=nn.relu, b=cell).init(new_key(), x_t)
    assert_equal(longer["b"], params["b"])

    drop = nn.stacked_cell(a=nn.dropout(0.5), first=lambda x: (x, x))
    noise = nn.stacked_cell(nn.dropout(0.5), nn.dropout(0.5))
    _, (one, _) = drop.step({"a": {}, "first": {}}, {}, jnp.ones(100), key=new_key(), train=True)
    _, both = noise.step(({}, {}), {}, jnp.ones(100), key=new_key(), train=True)
    assert 0.1 < np.mean(both != 0) < 0.4 < np.mean(one != 0) < 0.6


def test_a_model_of_characters_can_be_a_cell():
    model = nn.recurrent(CHARACTERS)
    tokens = np.array([[1, 2, 3, 4], [9, 8, 7, 6]])
    params = params_of_layer(model, tokens)
    y, _ = fast_jit(model.apply)(params, {}, tokens)
    assert y.shape == (2, 4, 10)
    new = nn.generate(CHARACTERS, params, tokens, length=2)
    np.testing.assert_array_equal(new[:, 0], np.argmax(y[:, -1], axis=-1))


def test_padding_may_be_an_id_outside_the_table():
    model = nn.recurrent(CHARACTERS)
    tokens = np.array([[1, 2, -1, 99]])
    params = params_of_layer(model, tokens)

    @fast_jit
    @jax.grad
    def gradient(params):
        y, _ = model.apply(params, {}, tokens, lengths=np.array([2]))
        return jnp.sum(jnp.sin(y))

    embedding = gradient(params)["embed"]["embedding"]
    np.testing.assert_array_equal(np.flatnonzero(np.any(embedding != 0, axis=1)), [1, 2])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params)))


# Sequences

LSTM, GRU = nn.lstm_cell(3), nn.gru_cell(3)


@functools.cache
def x_and_params():
    """A batch of three sequences of five steps, and params of `LSTM`."""
    return normal(1, 3, 5, INPUTS), params_of(LSTM)


def run(x, params, *, lengths=None, initial_carry=None, **options):
    """`(ys, carry)` of the LSTM."""
    layer = nn.recurrent(LSTM, return_carry=True, **options)
    return layer.apply(params, {}, x, lengths=lengths, initial_carry=initial_carry)[0]


@pytest.mark.parametrize("reverse", [False, True])
def test_recurrent_is_a_loop_over_steps(reverse):
    x, params = x_and_params()
    carry = LSTM.initial_carry(params, (3,), jnp.float32)
    ys = {}
    for t in reversed(range(5)) if reverse else range(5):
        carry, ys[t] = LSTM.step(params, carry, x[:, t])
    expected = jnp.stack([ys[t] for t in range(5)], axis=1), carry
    assert_close(run(x, params, reverse=reverse), expected)


def test_reverse_is_forward_over_the_flipped_sequence():
    x, params = x_and_params()
    ys, carry = run(x[:, ::-1], params)
    assert_equal(run(x, params, reverse=True), (ys[:, ::-1], carry))


@quick_first(1)
@pytest.mark.parametrize("reverse", [False, True])
def test_each_padded_sequence_is_as_if_it_were_alone(reverse):
    x, params = x_and_params()
    lengths = np.array([5, 0, 2])
    begin = normal_like(3, LSTM.initial_carry(params, (3,), jnp.float32))
    padded = np.where(np.arange(5)[None, :, None] < lengths[:, None, None], x, np.nan)
    ys, carry = run(padded, params, lengths=lengths, initial_carry=begin, reverse=reverse)
    for i, n in enumerate(lengths):
        one = slice(i, i + 1)
        own = at(one, begin)
        if n:
            alone, after = run(x[one, :n], params, initial_carry=own, reverse=reverse)
            np.testing.assert_allclose(ys[one, :n], alone, rtol=1e-6)
        else:
            after = own
        assert_close(at(one, carry), after)
        np.testing.assert_array_equal(ys[i, n:], 0)


def test_padding_that_is_not_a_number_has_gradient_0():
    x, params = x_and_params()
    lengths = np.array([5, 0, 2])
    valid = np.arange(5)[None, :, None] < lengths[:, None, None]

    @fast_jit
    def gradients(x):
        def total(params, x):
            ys, carry = run(x, params, lengths=lengths)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in (ys, *carry))

        return jax.grad(total, (0, 1))(params, x)

    dparams, dx = gradients(np.where(valid, x, np.nan))
    expected_dparams, expected_dx = gradients(x)
    assert_equal(dparams, expected_dparams)
    assert_equal(dx, expected_dx)
    np.testing.assert_array_equal(np.any(dx != 0, axis=-1), valid[..., 0])


@each_value_once
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, np.array([5, 0, 2], np.uint8)])
def test_last_output(reverse, lengths):
    x, params = x_and_params()
    ys, (h, _) = run(x, params, lengths=lengths, reverse=reverse)
    y, _ = run(x, params, lengths=lengths, reverse=reverse, last=True)
    if lengths is None:
        np.testing.assert_array_equal(y, ys[:, 0 if reverse else -1])
        np.testing.assert_array_equal(y, h)
    else:
        position = np.zeros(3, int) if reverse else np.maximum(lengths.astype(int) - 1, 0)
        np.testing.assert_array_equal(y, ys[np.arange(3), position])
        np.testing.assert_array_equal(y, np.where(lengths[:, None] > 0, h, 0))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_may_be_run_in_pieces(reverse):
    x, params = x_and_params()
    pieces = (x[:, 2:], x[:, :2]) if reverse else (x[:, :2], x[:, 2:])
    first, carry = run(pieces[0], params, reverse=reverse)
    second, carry = run(pieces[1], params, reverse=reverse, initial_carry=carry)
    ys = jnp.concatenate([second, first] if reverse else [first, second], axis=1)
    assert_close((ys, carry), run(x, params, reverse=reverse))


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
def test_a_carry_that_is_given_is_cast_to_the_dtypes_of_the_cell(x_dtype):
    x, params = x_and_params()
    begin = jax.ShapeDtypeStruct((3, 3), jnp.float16), jax.ShapeDtypeStruct((3, 3), jnp.float32)
    x = jax.ShapeDtypeStruct(x.shape, x_dtype)
    ys, (h, c) = jax.eval_shape(lambda x, begin: run(x, params, initial_carry=begin), x, begin)
    assert (ys.dtype, h.dtype, c.dtype) == (x_dtype, x_dtype, jnp.float32)


def test_lengths_may_be_traced_and_mapped():
    x, params = x_and_params()
    lengths = np.array([1, 5, 3])
    expected = run(x, params, lengths=lengths, last=True)

    @fast_jit
    def both(x, lengths):
        def alone(x, n):
            return run(x, params, lengths=n, last=True, time_axis=0)

        return run(x, params, lengths=lengths, last=True), jax.vmap(alone)(x, lengths)

    for got in both(x, lengths):
        assert_close(got, expected)


def test_time_axis():
    x, params = x_and_params()
    ys, _ = run(x, params)
    np.testing.assert_allclose(run(x[0], params, time_axis=0)[0], ys[0], rtol=1e-6)
    deeper, (h, _) = run(np.stack([x, x]), params, time_axis=2, lengths=np.full((2, 3), 5))
    np.testing.assert_allclose(deeper, jnp.stack([ys, ys]), rtol=1e-6)
    assert h.shape == (2, 3, 3)


def test_no_steps_leave_the_carry():
    x, params = x_and_params()
    begin = normal_like(3, LSTM.initial_carry(params, (3,), jnp.float32))
    ys, carry = run(x[:, :0], params, initial_carry=begin)
    assert ys.shape == (3, 0, 3)
    assert_equal(carry, begin)


def test_input_and_output_may_be_pytrees():
    both = nn.Cell(
        init=lambda key, x_t: {},
        initial_carry=lambda params, batch_shape, dtype: jnp.zeros(batch_shape, dtype),
        step=lambda params, carry, x_t, *, key=None, train=False: (
            carry + x_t["a"],
            {"sum": carry + x_t["a"], "doubled": 2 * x_t["b"]},
        ),
    )
    x = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3, 4), int)}
    layer = nn.recurrent(both, return_carry=True)
    (y, carry), _ = layer.apply({}, {}, x, lengths=np.array([3, 1]))
    np.testing.assert_array_equal(carry, [3, 1])
    np.testing.assert_array_equal(y["sum"], [[1, 2, 3], [1, 0, 0]])
    np.testing.assert_array_equal(y["doubled"][..., 0], [[2, 2, 2], [2, 0, 0]])
    last, _ = nn.recurrent(both, last=True).apply({}, {}, x, lengths=np.array([3, 1]))
    np.testing.assert_array_equal(last["sum"], [3, 1])


def test_each_step_has_a_key_that_depends_on_its_position_alone():
    layer = nn.recurrent(nn.stacked_cell(nn.dropout(0.5)))

    def noise(steps, **keywords):
        x = jnp.ones((2, steps, 50))
        return layer.apply(({},), {}, x, key=new_key(), train=True, **keywords)[0]

    y = noise(4)
    assert len({row.tobytes() for row in np.asarray(y).reshape(8, 50)}) == 8
    np.testing.assert_array_equal(noise(3), y[:, :3])
    np.testing.assert_array_equal(noise(4, lengths=np.array([4, 3]))[0], y[0])


def test_train_reaches_the_cell():
    seen = []

    def step(params, carry, x_t, *, key=None, train=False):
        seen.append(train)
        return carry, x_t

    cell = nn.Cell(lambda key, x_t: {}, lambda params, batch_shape, dtype: (), step)
    for layer in (nn.recurrent(nn.stacked_cell(cell)), nn.bidirectional(cell)):
        params, _ = layer.init(new_key(), jnp.ones((2, 3, 4)))
        for train in (False, True):
            seen.clear()
            layer.apply(params, {}, jnp.ones((2, 3, 4)), train=train)
            assert set(seen) == {train}


def test_the_program_does_not_grow_with_time():
    layer = nn.recurrent(CELLS["stacked"])

    def equations(steps):
        x = jax.ShapeDtypeStruct((2, steps, INPUTS), np.float32)
        params, _ = jax.eval_shape(layer.init, new_key(), x)
        return len(str(jax.make_jaxpr(layer.apply)(params, {}, x)).splitlines())

    assert equations(3) == equations(300)


def test_composed_layers_pass_lengths_and_carries_on():
    x, params = x_and_params()
    lengths = np.array([5, 0, 2])
    begin = normal_like(3, LSTM.initial_carry(params, (3,), jnp.float32))

    def forward(f, x, *, lengths=None, initial_carry=None):
        return f.rnn(x, lengths=lengths, initial_carry=initial_carry)

    keywords = {"lengths": lengths, "initial_carry": begin}
    expected, _ = run(x, params, **keywords)
    composed = nn.compose(forward, rnn=nn.recurrent(LSTM))
    np.testing.assert_array_equal(composed.apply({"rnn": params}, {}, x, **keywords)[0], expected)
    init, _ = composed.init(new_key(), x, **keywords)
    assert abstract(init["rnn"]) == abstract(params)

    x = normal(4, 3, 5, 3)
    cell = nn.gru_cell(3)
    params, _ = nn.recurrent(cell).init(new_key(), x)
    around = nn.residual(nn.recurrent(cell))
    y, _ = around.apply({"layer": params}, {}, x, lengths=lengths)
    inside, _ = nn.recurrent(cell).apply(params, {}, x, lengths=lengths)
    np.testing.assert_array_equal(y, x + inside)


# Both directions


def two_directions():
    """Params for a bidirectional layer of `LSTM` and `GRU`."""
    return {"forward": params_of(LSTM, seed=1), "backward": params_of(GRU, seed=2)}


@pytest.mark.parametrize("last", [pytest.param(False, marks=pytest.mark.slow), True])
def test_bidirectional_is_two_recurrent_layers(last):
    x, _ = x_and_params()
    params, lengths = two_directions(), np.array([5, 0, 2])
    merges = ["concatenate", "sum", jnp.multiply, lambda a, b: {"a": a, "b": b}]
    options = {"last": last, "return_carry": True}

    @fast_jit
    def outputs(params):
        merged = [nn.bidirectional(LSTM, GRU, merge=merge, **options) for merge in merges]
        one, two = (
            nn.recurrent(LSTM, **options).apply(params["forward"], {}, x, lengths=lengths),
            nn.recurrent(GRU, reverse=True, **options).apply(
                params["backward"], {}, x, lengths=lengths
            ),
        )
        return one[0], two[0], [m.apply(params, {}, x, lengths=lengths)[0] for m in merged]

    (one, h), (two, g), merged = outputs(params)
    expected = np.concatenate([one, two], axis=-1), one + two, one * two, {"a": one, "b": two}
    for got, y in zip(merged, expected, strict=True):
        assert_close(got, (y, {"forward": h, "backward": g}))


def test_bidirectional_carries_and_time_axis():
    x, _ = x_and_params()
    params = two_directions()
    begin = {"forward": (normal(1, 3), normal(2, 3)), "backward": normal(3, 3)}
    layer = nn.bidirectional(LSTM, GRU, time_axis=0, return_carry=True)
    (ys, _), _ = layer.apply(params, {}, x[0], initial_carry=begin)
    one, _ = run(x[0], params["forward"], time_axis=0, initial_carry=begin["forward"])
    np.testing.assert_allclose(ys[:, :3], one, rtol=1e-6)


def test_directions_have_parameters_and_keys_of_their_own():
    x = jnp.ones((1, 1, 100))
    params, _ = nn.bidirectional(nn.rnn_cell(4, recurrent_kernel_init=ZEROS)).init(new_key(), x)
    forward, backward = params["forward"], params["backward"]
    assert np.any(forward["input"]["kernel"] != backward["input"]["kernel"])
    noise = nn.bidirectional(nn.stacked_cell(nn.dropout(0.5)))
    params = {"forward": ({},), "backward": ({},)}
    y, _ = noise.apply(params, {}, x, key=new_key(), train=True)
    assert np.any(y[..., :100] != y[..., 100:])


# Errors


def ones(*shape):
    """An array of ones."""
    return jnp.ones(shape)


def apply_lstm(x, **keywords):
    """The LSTM over `x`."""
    return nn.recurrent(LSTM).apply(x_and_params()[1], {}, x, **keywords)


def step(function, gates, **wrong):
    """A step from 2 inputs to 3 features, with some arguments replaced."""
    given = {
        "x": ones(4, 2),
        "h": ones(4, 3),
        **({"c": ones(4, 3)} if gates == 4 else {}),
        "input_kernel": ones(2, 3 * gates),
        "recurrent_kernel": ones(3, 3 * gates),
        "bias": ones(3 * gates),
    }
    return function(**(given | wrong))


f = nn.functional
X = (3, 5, INPUTS)
COUNTER = nn.Cell(
    lambda key, x_t: {},
    lambda params, batch_shape, dtype: {"count": jnp.zeros((), int)},
    lambda params, carry, x_t, *, key=None, train=False: (carry, x_t),
)

# Each: the call, the exception, and what its message contains.
BAD_CALLS = {
    "features": (lambda: nn.lstm_cell(0), ValueError, ("lstm_cell: features is 0", "at least 1")),
    "features_fraction": (lambda: nn.gru_cell(1.5), TypeError, ("gru_cell: features is 1.5",)),
    "rnn_features": (lambda: nn.rnn_cell("a"), TypeError, ("rnn_cell: features is 'a'",)),
    "cell_scalar": (
        lambda: nn.gru_cell(2).init(new_key(), 1.0),
        ValueError,
        ("gru_cell: x is a scalar", "expected shape (..., in)"),
    ),
    "cell_key": (lambda: nn.rnn_cell(2).init(0, ones(2)), TypeError, ("rnn_cell: key is int",)),
    "positional": (lambda: nn.lstm_cell(2, 1.0), TypeError, ("lstm_cell", "positional")),
    "step_scalar": (
        lambda: step(f.rnn_step, 1, x=1.0),
        ValueError,
        ("rnn_step: x has shape ()", "expected (..., in)"),
    ),
    "step_h": (
        lambda: step(f.lstm_step, 4, h=ones(3)),
        ValueError,
        ("lstm_step: h has shape (3,)", "expected shape (4, 3)"),
    ),
    "step_c": (
        lambda: step(f.lstm_step, 4, c=ones(4, 1)),
        ValueError,
        ("lstm_step: c has shape (4, 1)", "expected shape (4, 3)"),
    ),
    "step_input_kernel": (
        lambda: step(f.gru_step, 3, input_kernel=ones(4, 9)),
        ValueError,
        ("gru_step: input_kernel has shape (4, 9)", "expected shape (2, 9)"),
    ),
    "step_recurrent_kernel": (
        lambda: step(f.gru_step, 3, recurrent_kernel=ones(3, 12)),
        ValueError,
        ("gru_step: recurrent_kernel has shape (3, 12)", "expected (features, 3 * features)"),
    ),
    "rnn_recurrent_kernel": (
        lambda: step(f.rnn_step, 1, recurrent_kernel=ones(3)),
        ValueError,
        ("rnn_step: recurrent_kernel has shape (3,)", "expected (features, features)"),
    ),
    "step_bias": (
        lambda: step(f.lstm_step, 4, bias=ones(3)),
        ValueError,
        ("lstm_step: bias has shape (3,)", "expected shape (12,)"),
    ),
    "recurrent_bias": (
        lambda: step(f.gru_step, 3, recurrent_bias=ones(9)),
        ValueError,
        ("gru_step: recurrent_bias has shape (9,)", "expected shape (3,)"),
    ),
    "recurrent_bias_reset_before": (
        lambda: step(f.gru_step, 3, recurrent_bias=ones(3), reset_after=False),
        ValueError,
        ("gru_step: recurrent_bias is given", "None with reset_after=False"),
    ),
    "conv_kernel_size": (
        lambda: nn.conv_lstm_cell(2, (3, 3), (5,)),
        ValueError,
        ("conv_lstm_cell: kernel_size is (3, 3)", "each of 1 spatial axes"),
    ),
    "conv_spatial_shape": (
        lambda: nn.conv_lstm_cell(2, (3, 3), (5, 0)),
        ValueError,
        ("conv_lstm_cell: spatial_shape is 0", "at least 1"),
    ),
    "conv_x": (
        lambda: nn.conv_lstm_cell(2, (3, 3), (5, 5)).init(new_key(), ones(5, 1)),
        ValueError,
        ("conv_lstm_cell: x has shape (5, 1)", "expected 2 spatial axes before the channels"),
    ),
    "conv_other_images": (
        lambda: nn.stacked_cell(nn.conv_lstm_cell(2, (3,), (5,))).init(new_key(), ones(6, 1)),
        ValueError,
        ("conv_lstm_step: h has shape (5, 2)", "expected shape (6, 2)"),
    ),
    "conv_step_kernel": (
        lambda: f.conv_lstm_step(ones(5, 1), ones(5, 2), ones(5, 2), ones(1, 8), ones(2, 8)),
        ValueError,
        ("conv_lstm_step: recurrent_kernel has shape (2, 8)", "(*window, features, 4 * features)"),
    ),
    "conv_step_x": (
        lambda: f.conv_lstm_step(ones(1), ones(2), ones(2), ones(3, 1, 8), ones(3, 2, 8)),
        ValueError,
        ("conv_lstm_step: x has shape (1,)", "expected (..., *spatial, in)"),
    ),
    "stack_mixed": (
        lambda: nn.stacked_cell(LSTM, out=nn.dense(2)),
        TypeError,
        ("stacked_cell: got 1 positional and 1 named cells (out)", "all of one kind"),
    ),
    "stack_number": (lambda: nn.stacked_cell(LSTM, 3), TypeError, ("stacked_cell: '1' is 3",)),
    "stack_constructor": (
        lambda: nn.stacked_cell(a=nn.lstm_cell),
        TypeError,
        ("stacked_cell: 'a' is the constructor lstm_cell", "call it, lstm_cell(...)"),
    ),
    "stack_state": (
        lambda: nn.stacked_cell(LSTM, nn.batch_norm()).init(new_key(), ones(2)),
        ValueError,
        ("stacked_cell: '1' is batch_norm(), which has state ('mean', 'var')", "without"),
    ),
    "stack_params": (
        lambda: nn.stacked_cell(a=LSTM).step({"b": {}}, {}, ones(2)),
        ValueError,
        ("stacked_cell: params has entries for ['b']", "expected ['a']"),
    ),
    "stack_key": (
        lambda: nn.stacked_cell(nn.relu).init(0, ones(2)),
        TypeError,
        ("stacked_cell: key is int",),
    ),
    "recurrent_layer": (
        lambda: nn.recurrent(nn.dense(2)),
        TypeError,
        ("recurrent: cell is dense(2)", "expected a Cell"),
    ),
    "recurrent_constructor": (
        lambda: nn.recurrent(nn.lstm_cell),
        TypeError,
        ("recurrent: cell is the constructor lstm_cell", "call it, lstm_cell(...)"),
    ),
    "recurrent_time_axis": (
        lambda: nn.recurrent(LSTM, time_axis=-2),
        ValueError,
        ("recurrent: time_axis is -2", "at least 0"),
    ),
    "recurrent_key": (
        lambda: nn.recurrent(LSTM).init(0, ones(*X)),
        TypeError,
        ("recurrent: key is int",),
    ),
    "recurrent_apply_key": (
        lambda: apply_lstm(ones(*X), key=0, train=True),
        TypeError,
        ("recurrent: key is int",),
    ),
    "recurrent_x": (
        lambda: nn.recurrent(LSTM).init(new_key(), ones(3)),
        ValueError,
        ("recurrent: x has shape (3,)", "expected (batch, time, ...)"),
    ),
    "recurrent_x_tree": (
        lambda: nn.recurrent(LSTM).apply({}, {}, (ones(2, 3), ones(2, 4))),
        ValueError,
        ("recurrent: x has shape (2, 3), (2, 4)", "expected (batch, time, ...), the same for all"),
    ),
    "recurrent_features": (
        lambda: apply_lstm(ones(3, 5, 2)),
        ValueError,
        ("lstm_step: input_kernel has shape (4, 12)", "expected shape (2, 12)"),
    ),
    "lengths_shape": (
        lambda: apply_lstm(ones(*X), lengths=np.array([5])),
        ValueError,
        ("recurrent: lengths has shape (1,)", "expected shape (3,)"),
    ),
    "lengths_dtype": (
        lambda: apply_lstm(ones(*X), lengths=np.array([5.0, 1, 2])),
        TypeError,
        ("recurrent: lengths have dtype float", "expected integers"),
    ),
    "lengths_mask": (
        lambda: apply_lstm(ones(*X), lengths=np.ones(3, bool)),
        TypeError,
        ("recurrent: lengths have dtype bool", "expected integers"),
    ),
    "lengths_range": (
        lambda: apply_lstm(ones(*X), lengths=np.array([5, 6, 0])),
        ValueError,
        ("recurrent: lengths is [5 6 0]", "in [0, 5]"),
    ),
    "lengths_carry": (
        lambda: nn.recurrent(COUNTER).apply({}, {}, ones(*X), lengths=np.array([5, 1, 2])),
        ValueError,
        ("with lengths", "'count' has shape ()", "expected (3,) first"),
    ),
    "carry_structure": (
        lambda: apply_lstm(ones(*X), initial_carry=ones(3, 3)),
        ValueError,
        ("recurrent: initial_carry and the carry of lstm_cell(3) differ in structure",),
    ),
    "carry_shape": (
        lambda: apply_lstm(ones(*X), initial_carry=(ones(3, 3), ones(3))),
        ValueError,
        ("recurrent: initial_carry '1' has shape (3,)", "expected shape (3, 3)"),
    ),
    "last_of_none": (
        lambda: nn.recurrent(LSTM, last=True).apply(x_and_params()[1], {}, ones(3, 0, INPUTS)),
        ValueError,
        ("recurrent: x has 0 steps", "at least 1 with last=True"),
    ),
    "bidirectional_cell": (
        lambda: nn.bidirectional(LSTM, nn.dense(2)),
        TypeError,
        ("bidirectional: backward is dense(2)", "expected a Cell"),
    ),
    "bidirectional_merge": (
        lambda: nn.bidirectional(LSTM, merge="concat"),
        ValueError,
        ("bidirectional: merge is 'concat'", "'concatenate', 'sum' or a function"),
    ),
    "bidirectional_carry": (
        lambda: nn.bidirectional(GRU).apply(
            two_directions(), {}, ones(*X), initial_carry={"forward": ones(3, 3)}
        ),
        ValueError,
        ("bidirectional: initial_carry has entries for ['forward']", "['backward', 'forward']"),
    ),
}


@pytest.mark.parametrize(("call", "exception", "fragments"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input(call, exception, fragments):
    with pytest.raises(exception) as error:
        call()
    for fragment in fragments:
        assert fragment in str(error.value)


def test_errors_inside_carry_the_path():
    drop = nn.stacked_cell(lower=nn.stacked_cell(drop=nn.dropout(0.5)))
    for layer, path in [
        (nn.recurrent(drop), "lower/drop"),
        (nn.bidirectional(drop), "forward/lower/drop"),
    ]:
        params, _ = layer.init(new_key(), ones(*X))
        with pytest.raises(ValueError, match="needs a key") as error:
            layer.apply(params, {}, ones(*X), train=True)
        assert f"in layer '{path}'" in error.value.__notes__


# Decoding


def learned_start(features):
    """A cell that begins with a parameter."""
    gru = nn.gru_cell(features)

    def init(key, x_t):
        return {"gru": gru.init(key, x_t), "start": jnp.linspace(-1, 1, features)}

    def initial_carry(params, batch_shape, dtype):
        return jnp.broadcast_to(params["start"].astype(dtype), (*batch_shape, features))

    def step(params, carry, x_t, *, key=None, train=False):
        return gru.step(params["gru"], carry, x_t, key=key, train=train)

    return nn.Cell(init, initial_carry, step)


@pytest.mark.parametrize(
    ("cell", "dtype"),
    [
        (nn.lstm_cell(3), jnp.float32),
        (learned_start(3), jnp.float32),
        (nn.lru_cell(3), jnp.bfloat16),
    ],
)
def test_a_call_goes_on_where_the_last_one_ended(cell, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4)), dtype)
    layer, decoder = nn.recurrent(cell), nn.recurrent(cell, cached=True)
    params, _ = layer.init(jax.random.key(0), x)
    if "start" in params:
        params["start"] += 1  # what counts is what was trained
    _, state = decoder.init(jax.random.key(1), x[:, :1])
    forms = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    expected, _ = layer.apply(params, {}, x)
    parts = []
    for part in (x[:, :3], x[:, 3:4], x[:, 4:]):
        y, state = decoder.apply(params, state, part)
        parts.append(y)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == forms
    np.testing.assert_allclose(
        np.float32(jnp.concatenate(parts, 1)), np.float32(expected), rtol=1e-5, atol=1e-6
    )


def test_a_state_space_model_decodes_what_it_computes_at_once():
    """A stack of blocks whose carry is complex, in a program of generation."""

    def model(**cache):
        mixer = nn.residual(nn.serial(nn.layer_norm(), nn.recurrent(nn.lru_cell(8), **cache)))
        return nn.serial(nn.embedding(7, 8), nn.stack(mixer, 2), nn.dense(7))

    prompt = np.array([[3, 1, 4], [1, 5, 2]])
    params, state = model().init(jax.random.key(0), prompt)
    tokens, log_probs = nn.generate(
        nn.autoregressive(model(cached=True)), params, prompt, length=4, return_log_probs=True
    )
    text = np.concatenate([prompt, tokens], 1)
    logits, _ = fast_jit(model().apply)(params, state, text[:, :-1])
    np.testing.assert_array_equal(np.argmax(logits[:, 2:], -1), tokens)
    expected = np.take_along_axis(jax.nn.log_softmax(logits[:, 2:]), tokens[..., None], 2)[..., 0]
    np.testing.assert_allclose(log_probs, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["reverse", "return_carry"])
def test_what_does_not_go_with_decoding(name):
    with pytest.raises(ValueError, match=f"recurrent: {name} is True, expected False with cached"):
        nn.recurrent(nn.lstm_cell(3), cached=True, **{name: True})
    with pytest.raises(ValueError, match=r"recurrent: state has \[\], expected 'carry'"):
        nn.recurrent(nn.lstm_cell(3), cached=True).apply({}, {}, np.ones((1, 1, 2), np.float32))
