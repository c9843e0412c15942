"""Recurrent layers against torch and flax, with weights and non-zero biases carried over."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit

F32 = {"rtol": 1e-5, "atol": 1e-5}
F64 = {"rtol": 1e-10, "atol": 1e-10}
BATCH, TIME, INPUTS, FEATURES, LAYERS = 4, 6, 3, 5, 2
LENGTHS = np.array([3, 6, 1, 5])

# Name: torch's class and its options, and the cell.
KINDS = {
    "tanh": ("RNN", {"nonlinearity": "tanh"}, nn.rnn_cell(FEATURES)),
    "relu": ("RNN", {"nonlinearity": "relu"}, nn.rnn_cell(FEATURES, activation=nn.relu)),
    "lstm": ("LSTM", {}, nn.lstm_cell(FEATURES)),
    "gru": ("GRU", {}, nn.gru_cell(FEATURES)),
}


@pytest.fixture(scope="module")
def torch():
    """The torch package."""
    return pytest.importorskip("torch")


def normal(seed, *shape, dtype=np.float32):
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def two_layers(cell, bidirectional):
    """Two layers, the lengths and carries of which go to both: torch's `num_layers=2`."""
    make = nn.bidirectional if bidirectional else nn.recurrent

    def forward(f, x, *, lengths, carries):
        y, lower = f.lower(x, lengths=lengths, initial_carry=carries[0])
        y, upper = f.upper(y, lengths=lengths, initial_carry=carries[1])
        return y, (lower, upper)

    layer = make(cell, return_carry=True)
    return nn.compose(forward, lower=layer, upper=layer)


def cell_params(weights, suffix, is_gru):
    """The params of a cell from those of a torch module: transposed, and one bias of two."""
    w_ih, w_hh, b_ih, b_hh = (
        weights[f"{kind}_{part}_{suffix}"] for kind in ("weight", "bias") for part in ("ih", "hh")
    )
    params = {"input": {"kernel": w_ih.T, "bias": b_ih + b_hh}, "recurrent": {"kernel": w_hh.T}}
    if is_gru:
        gates = slice(0, 2 * FEATURES)
        params["input"]["bias"] = jnp.asarray(b_ih).at[gates].add(b_hh[gates])
        params["recurrent"]["bias"] = b_hh[2 * FEATURES :]
    return params


def by_layer(of_direction, bidirectional):
    """A tree with an entry for each layer (and direction), made from the numbers of both."""
    if not bidirectional:
        return [of_direction(layer, 0) for layer in range(LAYERS)]
    names = "forward", "backward"
    return [{n: of_direction(k, d) for d, n in enumerate(names)} for k in range(LAYERS)]


def run_ours(cell, is_gru, bidirectional, lengths):
    """A function of torch's arguments, that gives what torch gives."""
    model = two_layers(cell, bidirectional)
    directions = 2 if bidirectional else 1

    def run(weights, x, states):
        def params(layer, direction):
            suffix = f"l{layer}" + ("_reverse" if direction else "")
            return cell_params(weights, suffix, is_gru)

        def carry(layer, direction):
            parts = tuple(state[layer * directions + direction] for state in states)
            return parts if len(parts) > 1 else parts[0]

        lower, upper = by_layer(params, bidirectional)
        (y, carries), _ = model.apply(
            {"lower": lower, "upper": upper},
            {},
            x,
            lengths=lengths,
            carries=by_layer(carry, bidirectional),
        )
        last = [c[name] for c in carries for name in ("forward", "backward") if bidirectional]
        last = last or list(carries)
        last = [c if isinstance(c, tuple) else (c,) for c in last]
        return y, tuple(jnp.stack(part) for part in zip(*last, strict=True))

    return run


def run_torch(torch, module, x, states, lengths):
    """The outputs and final states of a torch module."""
    utilities = torch.nn.utils.rnn
    given = states if len(states) > 1 else states[0]
    if lengths is not None:
        lengths = torch.tensor(lengths)
        x = utilities.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, last = module(x, given)
    if lengths is not None:
        y, _ = utilities.pad_packed_sequence(y, batch_first=True, total_length=TIME)
    return y, last if isinstance(last, tuple) else (last,)


def all_cases():
    """Every combination; the gated cells with all there is run always, the others are slow."""
    for kind, both, padded in product(KINDS, (True, False), (True, False)):
        name = f"{kind}-{'both_ways' if both else 'forward'}-{'lengths' if padded else 'whole'}"
        always = both and padded and kind in ("lstm", "gru")
        marks = [] if always else [pytest.mark.slow]
        yield pytest.param(kind, both, LENGTHS if padded else None, id=name, marks=marks)


@pytest.mark.parametrize(("kind", "bidirectional", "lengths"), list(all_cases()))
def test_two_layers(torch, kind, bidirectional, lengths, x64):
    name, options, cell = KINDS[kind]
    module = getattr(torch.nn, name)(
        INPUTS, FEATURES, LAYERS, batch_first=True, bidirectional=bidirectional, **options
    ).double()
    named = list(module.named_parameters())
    weights = {name: normal(i, *p.shape, dtype=float) / 2 for i, (name, p) in enumerate(named)}
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(torch.tensor(weights[name]))
    directions = 2 if bidirectional else 1
    x = normal(100, BATCH, TIME, INPUTS, dtype=float)
    states = [
        normal(101 + i, LAYERS * directions, BATCH, FEATURES, dtype=float)
        for i in range(2 if kind == "lstm" else 1)
    ]
    ours = run_ours(cell, kind == "gru", bidirectional, lengths)

    @fast_jit
    def derived(*arguments):
        y, pullback = jax.vjp(ours, *arguments)
        return y, pullback(jax.tree.map(jnp.cos, y))

    (ys, last), (dweights, dx, dstates) = derived(weights, x, states)

    tensors = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    theirs, their_last = run_torch(torch, module, tensors[0], tensors[1:], lengths)
    outputs = [theirs, *their_last]
    for y, their_y in zip((ys, *last), outputs, strict=True):
        np.testing.assert_allclose(y, their_y.detach(), **F64)
    torch.autograd.backward(outputs, [torch.cos(y.detach()) for y in outputs])
    for gradient, tensor in zip((dx, *dstates), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad, **F64)
    for name, parameter in named:
        np.testing.assert_allclose(dweights[name], parameter.grad, **F64)


# flax


@pytest.fixture(scope="module")
def linen():
    """The module flax.linen, which relies on broadcasting over ranks."""
    linen = pytest.importorskip("flax.linen")
    with jax.numpy_rank_promotion("allow"):
        yield linen


def drawn(cell, x):
    """Normal params of a cell."""
    rng = np.random.default_rng(0)
    params = jax.eval_shape(cell.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), params)


def test_gru_is_that_of_flax(linen):
    cell = nn.gru_cell(FEATURES)
    x, h = normal(0, BATCH, INPUTS), normal(1, BATCH, FEATURES)
    params = drawn(cell, x[0])
    kernels, biases = (np.split(params["input"][leaf], 3, axis=-1) for leaf in ("kernel", "bias"))
    theirs = {}
    for i, gate in enumerate("rzn"):
        block = np.split(params["recurrent"]["kernel"], 3, axis=-1)[i]
        theirs[f"i{gate}"] = {"kernel": kernels[i], "bias": biases[i]}
        theirs[f"h{gate}"] = {"kernel": block}
    theirs["hn"]["bias"] = params["recurrent"]["bias"]
    _, expected = linen.GRUCell(FEATURES).apply({"params": theirs}, h, x)
    np.testing.assert_allclose(cell.step(params, h, x)[1], expected, **F32)


def test_lstm_is_that_of_flax(linen):
    cell = nn.lstm_cell(FEATURES)
    x, h, c = normal(0, BATCH, INPUTS), normal(1, BATCH, FEATURES), normal(2, BATCH, FEATURES)
    params = drawn(cell, x[0])
    kernels = np.split(params["input"]["kernel"], 4, axis=-1)
    recurrent = np.split(params["recurrent"]["kernel"], 4, axis=-1)
    biases = np.split(params["input"]["bias"], 4)
    theirs = {f"i{gate}": {"kernel": kernels[i]} for i, gate in enumerate("ifgo")} | {
        f"h{gate}": {"kernel": recurrent[i], "bias": biases[i]} for i, gate in enumerate("ifgo")
    }
    (their_c, their_h), _ = linen.LSTMCell(FEATURES).apply({"params": theirs}, (c, h), x)
    (our_h, our_c), _ = cell.step(params, (h, c), x)
    np.testing.assert_allclose(our_h, their_h, **F32)
    np.testing.assert_allclose(our_c, their_c, **F32)


def test_conv_lstm_is_that_of_flax(linen):
    cell = nn.conv_lstm_cell(2, (3, 2), (5, 4))
    x, h, c = normal(0, BATCH, 5, 4, 3), normal(1, BATCH, 5, 4, 2), normal(2, BATCH, 5, 4, 2)
    params = drawn(cell, x[0])

    def reordered(leaf):
        i, f, g, o = np.split(leaf, 4, axis=-1)
        return np.concatenate([i, g, f, o], axis=-1)

    i, f, g, o = np.split(params["input"]["bias"], 4)
    theirs = {
        "ih": {
            "kernel": reordered(params["input"]["kernel"]),
            "bias": np.concatenate([i, g, f - 1, o]),
        },
        "hh": {"kernel": reordered(params["recurrent"]["kernel"]), "bias": np.zeros(8, np.float32)},
    }
    module = linen.ConvLSTMCell(2, (3, 2))
    (their_c, their_h), _ = module.apply({"params": theirs}, (c, h), x)
    (our_h, our_c), _ = cell.step(params, (h, c), x)
    np.testing.assert_allclose(our_h, their_h, **F32)
    np.testing.assert_allclose(our_c, their_c, **F32)
