"""Recurrent steps, cells and what runs them over sequences."""

import functools

import jax
import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import activations, linear_recurrence, recurrent
from tests.table.rows import FunctionRow, LayerRow

FEATURES = 2
KERNELS_AND_BIAS = (("input", "kernel"), ("recurrent", "kernel"), ("input", "bias"))
LEAVES = {"rnn": KERNELS_AND_BIAS, "lstm": KERNELS_AND_BIAS}
LEAVES["gru"] = (*KERNELS_AND_BIAS, ("recurrent", "bias"))
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
CARRIES = {"rnn": 1, "lstm": 2, "gru": 1}
SEQUENCES = {"rnn": recurrent.rnn, "lstm": recurrent.lstm, "gru": recurrent.gru}


def draw_params(rng, kind, inputs, bias=True, recurrent_bias=False):
    """The two kernels, the bias and, for a GRU, the recurrent bias; None for what is not there."""
    columns = GATES[kind] * FEATURES
    params = [rng.standard_normal((inputs, columns)), rng.standard_normal((FEATURES, columns))]
    params.append(rng.standard_normal(columns) if bias else None)
    if kind == "gru":
        params.append(rng.standard_normal(FEATURES) if recurrent_bias else None)
    return params


# Steps


def step_arguments(kind, **wanted):
    """x, the parts of the carry, and params."""

    def draw(rng, shape):
        carry = [rng.standard_normal((*shape[:-1], FEATURES)) for _ in range(CARRIES[kind])]
        params = draw_params(rng, kind, shape[-1], **wanted)
        return rng.standard_normal(shape), *carry, *params

    return draw


def conv_lstm_arguments(rng, shape):
    """x of shape (batch, *spatial, in), h, c and kernels with windows of odd and even sizes."""
    images, columns = (*shape[:-1], FEATURES), 4 * FEATURES
    window = (3, 2)[: len(shape) - 2]
    return (
        *(rng.standard_normal(s) for s in (shape, images, images)),
        rng.standard_normal((*window, shape[-1], columns)),
        rng.standard_normal((*window, FEATURES, columns)),
        rng.standard_normal(columns),
    )


def step_rows():
    """Each cell with a bias over a batch and without one for a single example; both resets."""
    f = nn.functional
    for bias, shape in ((True, (2, 2, 3)), (False, (3,))):
        row = functools.partial(
            FunctionRow, shapes=(shape,), variant="bias" if bias else "without_bias"
        )
        draw = functools.partial(step_arguments, bias=bias)
        yield row("functional.rnn_step", f.rnn_step, recurrent.rnn_step, draw("rnn"))
        yield row("functional.lstm_step", f.lstm_step, recurrent.lstm_step, draw("lstm"))
        for after in (True, False):
            yield row(
                "functional.gru_step",
                f.gru_step,
                recurrent.gru_step,
                draw("gru", recurrent_bias=bias and after),
                options={"reset_after": after},
            )
    yield FunctionRow(
        "functional.conv_lstm_step",
        f.conv_lstm_step,
        recurrent.conv_lstm_step,
        conv_lstm_arguments,
        ((2, 4, 3), (1, 3, 2, 2)),
    )
    yield FunctionRow(
        "functional.rnn_step",
        functools.partial(f.rnn_step, activation=nn.relu),
        functools.partial(recurrent.rnn_step, activation="relu"),
        step_arguments("rnn"),
        ((4, 3),),
        variant="relu",
    )


# Sequences


def as_params(kind, arrays):
    """The params of a cell from the arrays in the order of `LEAVES`."""
    params = {"input": {}, "recurrent": {}}
    for (part, leaf), array in zip(LEAVES[kind], arrays, strict=True):
        if array is not None:
            params[part][leaf] = array
    return params


def sequence_arguments(*kinds):
    """x, and a carry and params for each of some cells, all flat; all take the same features."""

    def draw(rng, shape):
        arguments = [rng.standard_normal(shape)]
        for kind, recurrent_bias in kinds:
            carry = (shape[0], FEATURES)
            arguments += [rng.standard_normal(carry) for _ in range(CARRIES[kind])]
            arguments += draw_params(rng, kind, shape[-1], recurrent_bias=recurrent_bias)
        return tuple(arguments)

    return draw


def take(kind, arguments):
    """The carry and params of a cell from the first of the flat arguments, and the others."""
    carries = CARRIES[kind]
    size = carries + len(LEAVES[kind])
    carry, arrays = arguments[:carries], arguments[carries:size]
    return (carry if carries > 1 else carry[0]), as_params(kind, arrays), arguments[size:]


def run(layer, params, x, carry, lengths):
    """A layer with `return_carry`, flat: all outputs and the parts of the carry."""
    lengths = None if lengths is None else np.array(lengths)
    (ys, carry), _ = layer.apply(params, {}, x, lengths=lengths, initial_carry=carry)
    return ys, *jax.tree.leaves(carry)


def one_cell(kind, make_cell):
    """A cell over sequences as a function of flat arrays."""

    def function(x, *arguments, lengths, reverse):
        carry, params, _ = take(kind, arguments)
        layer = nn.recurrent(make_cell(FEATURES), reverse=reverse, return_carry=True)
        return run(layer, params, x, carry, lengths)

    return function


def stacked(x, *arguments, lengths, reverse):
    """A GRU with an LSTM on top, and a function between them."""
    lower_carry, lower, rest = take("gru", arguments)
    upper_carry, upper, _ = take("lstm", rest)
    cell = nn.stacked_cell(lower=nn.gru_cell(FEATURES), tanh=nn.tanh, upper=nn.lstm_cell(FEATURES))
    layer = nn.recurrent(cell, reverse=reverse, return_carry=True)
    params = {"lower": lower, "tanh": {}, "upper": upper}
    return run(layer, params, x, {"lower": lower_carry, "upper": upper_carry}, lengths)


def stacked_reference(x, *arguments, lengths, reverse):
    """The lower one over the whole sequence, then the upper one."""
    options = {"lengths": lengths, "reverse": reverse}
    of_lower, of_upper = arguments[:5], arguments[5:]
    (below, h), lower_backward = recurrent.gru(x, *of_lower, **options)
    between, tanh_backward = activations.tanh(below)
    (ys, *carry), upper_backward = recurrent.lstm(between, *of_upper, **options)

    def backward(dy):
        dys, dh, *dcarry = dy
        dbetween, *dupper = upper_backward((dys, *dcarry))
        dx, *dlower = lower_backward((*tanh_backward(dbetween), dh))
        return dx, *dlower, *dupper

    return (ys, h, *carry), backward


def both_ways(x, *arguments, lengths):
    """A GRU forward and an LSTM backward."""
    forward_carry, forward, rest = take("gru", arguments)
    backward_carry, backward, _ = take("lstm", rest)
    cells = nn.gru_cell(FEATURES), nn.lstm_cell(FEATURES)
    layer = nn.bidirectional(*cells, return_carry=True)
    params = {"forward": forward, "backward": backward}
    ys, *carry = run(
        layer, params, x, {"forward": forward_carry, "backward": backward_carry}, lengths
    )
    return ys, *carry[2:], *carry[:2]  # a dict's leaves are in the order of its sorted keys


def both_ways_reference(x, *arguments, lengths):
    """Two sequences side by side; each gets its features of dy, and their dx add up."""
    (one, h), one_backward = recurrent.gru(x, *arguments[:5], lengths=lengths)
    (other, *carry), other_backward = recurrent.lstm(
        x, *arguments[5:], lengths=lengths, reverse=True
    )

    def backward(dy):
        dys, dh, *dcarry = dy
        dx, *gradients = one_backward((dys[..., :FEATURES], dh))
        other_dx, *other_gradients = other_backward((dys[..., FEATURES:], *dcarry))
        return dx + other_dx, *gradients, *other_gradients

    return (np.concatenate([one, other], axis=-1), h, *carry), backward


# Linear recurrences: the parts of complex numbers as arguments and results

LRU_LEAVES = (
    ("input", "kernel"),
    ("input", "log_scale"),
    ("recurrent", "log_decay"),
    ("recurrent", "log_phase"),
    ("output", "kernel"),
    ("skip", "scale"),
)


def of_parts(function):
    """A function of complex a, b and h by their parts."""

    def split(*parts, **options):
        a, b, h = map(jax.lax.complex, parts[::2], parts[1::2])
        hs = function(a, b, h, **options)
        return hs.real, hs.imag

    return split


def of_parts_reference(*parts, **options):
    """The same of the reference."""
    a, b, h = (re + 1j * im for re, im in zip(parts[::2], parts[1::2], strict=True))
    hs, backward = linear_recurrence.linear_recurrence(a, b, h, **options)

    def pullback(dy):
        gradients = backward(dy[0] + 1j * dy[1])
        return tuple(part for g in gradients for part in (g.real, g.imag))

    return (hs.real, hs.imag), pullback


def factors_and_inputs(a_shape, parts):
    """Some parts of `a`, of `b` and of `h`."""

    def draw(rng, shape):
        shapes = a_shape or shape, shape, (shape[0], *shape[2:])
        return tuple(rng.standard_normal(s) for s in shapes for _ in range(parts))

    return draw


def lru_arguments(rng, shape):
    """x, the parts of a carry, and leaves in order."""
    n, features = 2, shape[-1]
    sizes = [shape, *2 * [(shape[0], n)], (features, 2 * n), *3 * [(n,)], (2 * n, features)]
    return tuple(rng.standard_normal(size) for size in (*sizes, (features,)))


def lru(x, real, imaginary, *leaves, lengths, reverse):
    """The cell over a sequence, flat."""
    params = {part: {} for part, _ in LRU_LEAVES}
    for (part, leaf), array in zip(LRU_LEAVES, leaves, strict=True):
        params[part][leaf] = array
    layer = nn.recurrent(nn.lru_cell(2), reverse=reverse, return_carry=True)
    ys, h = run(layer, params, x, jax.lax.complex(real, imaginary), lengths)
    return ys, h.real, h.imag


def lru_over_time(params, state, x, *, key, train):
    """From a carry of zeros."""
    leaves = [params[part][leaf] for part, leaf in LRU_LEAVES]
    zeros = np.zeros((len(x), len(leaves[1])))
    (ys, *_), backward = linear_recurrence.lru(x, zeros, zeros, *leaves)

    def pullback(dy):
        dx, _, _, *gradients = backward((dy, zeros, zeros))
        dparams = {part: {} for part, _ in LRU_LEAVES}
        for (part, leaf), gradient in zip(LRU_LEAVES, gradients, strict=True):
            dparams[part][leaf] = gradient
        return dparams, dx

    return ys, pullback


def linear_rows():
    """Real and complex, constant and varying factors; lengths and directions of the cell."""
    function, reference = nn.functional.linear_recurrence, linear_recurrence.linear_recurrence
    row = functools.partial(FunctionRow, "functional.linear_recurrence")
    shapes = ((2, 5, 3),)
    yield row(function, reference, factors_and_inputs(None, 1), shapes)
    yield row(
        of_parts(function),
        of_parts_reference,
        factors_and_inputs((1, 3), 2),
        shapes,
        {"reverse": True},
        "complex",
    )
    for reverse, lengths in ((True, (4, 0, 2)), (False, None)):
        yield FunctionRow(
            "recurrent",
            lru,
            linear_recurrence.lru,
            lru_arguments,
            ((3, 4, 3),),
            {"reverse": reverse, "lengths": lengths},
            "lru_cell",
        )


CELLS = {
    "rnn_cell": ("rnn", nn.rnn_cell, recurrent.rnn),
    "lstm_cell": ("lstm", nn.lstm_cell, recurrent.lstm),
    "gru_cell": ("gru", nn.gru_cell, recurrent.gru),
    "gru_cell_reset_before": (
        "gru",
        functools.partial(nn.gru_cell, reset_after=False),
        functools.partial(recurrent.gru, reset_after=False),
    ),
}


def sequence_rows():
    """Carries in and out, both directions, with and without lengths."""
    row = functools.partial(FunctionRow, shapes=((3, 4, 3),))
    padded, whole = {"lengths": (4, 0, 2)}, {"lengths": None}
    for variant, (kind, make_cell, reference) in CELLS.items():
        after = variant != "gru_cell_reset_before"
        draw = sequence_arguments((kind, after))
        for reverse, lengths in ((True, padded), (False, padded), (False, whole)):
            if reverse or variant in ("lstm_cell", "gru_cell"):
                yield row(
                    "recurrent",
                    one_cell(kind, make_cell),
                    reference,
                    draw,
                    options={"reverse": reverse, **lengths},
                    variant=variant,
                )
    draw = sequence_arguments(("gru", True), ("lstm", False))
    options = {"reverse": True, **padded}
    row = functools.partial(row, shapes=((3, 4, FEATURES),))
    yield row("stacked_cell", stacked, stacked_reference, draw, options=options)
    yield row("bidirectional", both_ways, both_ways_reference, draw, options=padded)


# Layers


def over_time(kind, last=False, sequence=None, **options):
    """The reference of `recurrent`, from a carry of zeros."""
    sequence = SEQUENCES.get(kind, sequence)
    leaves, carries = LEAVES.get(kind, KERNELS_AND_BIAS), CARRIES.get(kind, 2)

    def apply(params, state, x, *, key, train):
        arrays = [params[part].get(leaf) for part, leaf in leaves]
        carry = [np.zeros((len(x), *x.shape[2:-1], arrays[1].shape[-2]))] * carries
        (ys, *_), backward = sequence(x, *carry, *arrays, **options)
        at = 0 if options.get("reverse") else -1

        def pullback(dy):
            dys = np.zeros(ys.shape)
            dys[(slice(None), at) if last else ...] = dy
            dx, *gradients = backward((dys, *carry))
            dparams = {part: {} for part, _ in leaves}
            for (part, leaf), gradient in zip(leaves, gradients[carries:], strict=True):
                if gradient is not None:
                    dparams[part][leaf] = gradient
            return dparams, dx

        return ys[:, at] if last else ys, pullback

    return apply


def concatenated(forward, backward):
    """The reference of `bidirectional`: each direction gets its features of dy."""

    def apply(params, state, x, *, key, train):
        both = composed.parallel(forward=forward, backward=backward)
        ys, pull = both(params, state, x, key=key, train=train)
        features = ys["forward"].shape[-1]

        def pullback(dy):
            return pull({"forward": dy[..., :features], "backward": dy[..., features:]})

        return np.concatenate([ys["forward"], ys["backward"]], axis=-1), pullback

    return apply


SHAPES = ((2, 4, 3),)
LAYERS = (
    LayerRow(
        "recurrent_lstm",
        "recurrent(lstm_cell(3))",
        lambda: nn.recurrent(nn.lstm_cell(3)),
        SHAPES,
        over_time("lstm"),
    ),
    LayerRow(
        "recurrent_gru",
        "recurrent(gru_cell(3, reset_after=False), last=True)",
        lambda: nn.recurrent(nn.gru_cell(3, reset_after=False), last=True),
        SHAPES,
        over_time("gru", last=True, reset_after=False),
    ),
    LayerRow(
        "recurrent_conv_lstm",
        "recurrent(conv_lstm_cell(2, (3,), (4,)))",
        lambda: nn.recurrent(nn.conv_lstm_cell(2, (3,), (4,))),
        ((2, 3, 4, 2),),
        over_time("conv_lstm", sequence=recurrent.conv_lstm),
    ),
    LayerRow(
        "recurrent_stack",
        "recurrent(stacked_cell(cell=rnn_cell(3), drop=dropout(0.5)))",
        lambda: nn.recurrent(nn.stacked_cell(cell=nn.rnn_cell(3), drop=nn.dropout(0.5))),
        SHAPES,
        is_random=True,
    ),
    LayerRow(
        "recurrent_lru",
        "recurrent(lru_cell(3))",
        lambda: nn.recurrent(nn.lru_cell(3)),
        SHAPES,
        lru_over_time,
    ),
    LayerRow(
        "bidirectional",
        "bidirectional(rnn_cell(3))",
        lambda: nn.bidirectional(nn.rnn_cell(3)),
        SHAPES,
        concatenated(over_time("rnn"), over_time("rnn", reverse=True)),
    ),
)

FUNCTIONS = (*step_rows(), *sequence_rows(), *linear_rows())
