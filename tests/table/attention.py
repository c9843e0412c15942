"""Attention and its masks."""

from functools import partial

import jax
import numpy as np

import jaxnn as nn
from jaxnn._core.layer import child_key
from tests.numpy_reference import attention, dense, normalization, positions
from tests.table.rows import FunctionRow, LayerRow

f = nn.functional


def attend(query, key, value, bias, mask, **options):
    """The function with bias and mask in order."""
    return f.dot_product_attention(query, key, value, bias=bias, mask=mask, **options)


def heads(bias=None, mask=None, value_dim=None):
    """Draw arguments for a shape (*batch, queries, keys, heads, kv_heads, features).

    `bias` and `mask` tell which of the four last axes of the logits they have in full; query 0
    sees no key.
    """

    def draw(rng, shape):
        *batch, queries, keys, n, kv_n, features = shape
        logits = (*batch, n, queries, keys)

        def of(axes):
            return tuple(n if a in axes else 1 for a, n in zip("bhqk", logits, strict=True))

        def drawn_mask():
            drawn = rng.random(of(mask)) < 0.6
            drawn[..., :1, :] = False
            return drawn

        return (
            rng.standard_normal((*batch, queries, n, features)),
            rng.standard_normal((*batch, keys, kv_n, features)),
            rng.standard_normal((*batch, keys, kv_n, value_dim or features)),
            None if bias is None else rng.standard_normal(of(bias)),
            None if mask is None else drawn_mask(),
        )

    return draw


RATE = 0.4


def attend_with_dropout(*arguments, **options):
    """Dropout with a key of its own."""
    return attend_with_sinks(
        *arguments, dropout_rate=RATE, dropout_key=jax.random.key(7), **options
    )


def keep(key, rate, shape):
    """What dropout keeps, seen through ones."""
    return np.asarray(f.dropout(key, np.ones(shape), rate)) != 0


def attend_with_dropout_reference(query, key, *arguments, **options):
    """The same with the mask that the library draws."""
    shape = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    kept = keep(jax.random.key(7), RATE, shape)
    return attend_with_sinks_reference(
        query, key, *arguments, keep=kept, dropout_rate=RATE, **options
    )


def with_sinks(draw):
    """The same arguments and a sink for each head."""

    def drawn(rng, shape):
        return *draw(rng, shape), rng.standard_normal(shape[-3])

    return drawn


def attend_with_sinks(query, key, value, bias, mask, sinks, **options):
    """The function with sinks in order."""
    return attend(query, key, value, bias, mask, sinks=sinks, **options)


def attend_with_sinks_reference(query, key, value, bias, mask, sinks, **options):
    """The same of the reference."""
    return attention.dot_product_attention(query, key, value, bias, mask, sinks=sinks, **options)


def attention_rows():
    """Masks, biases, groups, offsets, windows, scale and dropout."""
    row = partial(
        FunctionRow, "functional.dot_product_attention", attend, attention.dot_product_attention
    )
    yield row(heads(), ((2, 3, 4, 2, 2, 3), (2, 3, 2, 2, 3)))
    yield row(heads(bias="bhqk", mask="bq"), ((2, 3, 4, 4, 2, 3),), variant="bias_mask_groups")
    yield row(
        heads(bias="hk", mask="bhqk", value_dim=2),
        ((2, 3, 4, 2, 1, 3),),
        {"scale": 0.3},
        "broadcast_bias_one_kv_head",
    )
    yield row(heads(), ((1, 3, 4, 2, 2, 3),), {"is_causal": True, "query_offset": 0})
    yield row(heads(mask="k"), ((2, 2, 5, 2, 1, 3),), {"is_causal": True, "query_offset": 3})
    yield row(heads(), ((1, 4, 5, 1, 1, 3),), {"window": (1, 0), "query_offset": 2})
    beyond = {"is_causal": True, "window": 1, "query_offset": 0}
    yield row(heads(), ((1, 5, 3, 1, 1, 3),), beyond)
    capped = {"soft_cap": 1.5}
    yield row(heads(bias="bhqk", mask="qk"), ((2, 3, 4, 2, 1, 3),), capped, "bias_mask")
    yield FunctionRow(
        "functional.dot_product_attention",
        attend_with_sinks,
        attend_with_sinks_reference,
        with_sinks(heads(bias="k", mask="bq")),
        ((2, 3, 5, 4, 2, 3),),
        capped,
        "sinks",
    )
    yield FunctionRow(
        "functional.dot_product_attention",
        attend_with_dropout,
        attend_with_dropout_reference,
        with_sinks(heads(mask="bhqk")),
        ((2, 3, 4, 4, 2, 3),),
        {"return_weights": True},
        "dropout",
    )


def linear_attend(query, key, value, sums, mask, **options):
    """The function with sums and mask in order, and both results."""
    given = {"sums": sums, "mask": mask, "return_sums": True}
    return f.linear_attention(query, key, value, **given, **options)


def linear_heads(has_sums, has_mask):
    """Arguments for a shape (*batch, queries, keys, heads, kv_heads, features)."""

    def draw(rng, shape):
        *batch, queries, keys, n, kv_n, features = shape
        sizes = (queries, n, features), (keys, kv_n, features), (keys, kv_n, 2)
        mask = rng.random((*batch, 1, 1, keys)) < 0.6
        mask[..., 0] = False
        sums = rng.uniform(0.5, 2.0, (*batch, kv_n, features, 3)) if has_sums else None
        arrays = (rng.standard_normal((*batch, *size)) for size in sizes)
        return *arrays, sums, mask if has_mask else None

    return draw


def linear_rows():
    """Grouped queries, a mask, sums from before, both directions."""
    row = partial(
        FunctionRow, "functional.linear_attention", linear_attend, attention.linear_attention
    )
    yield row(linear_heads(True, False), ((2, 3, 4, 4, 2, 3),))
    causal = {"is_causal": True}
    yield row(linear_heads(False, True), ((2, 5, 5, 2, 1, 3),), causal)
    yield row(linear_heads(True, True), ((2, 3, 3, 2, 2, 3),), causal, "sums")


# Masks: seen where they leave numbers standing


def choose(make):
    """The scores where the mask that `make(scores, *arguments)` gives is True, and 0 elsewhere."""

    def chosen(scores, *arguments, **options):
        return jax.numpy.where(make(scores, *arguments, **options), scores, 0)

    return chosen


def integers(high, *axes):
    """Draw scores, and integers below `high` for some of their axes."""

    def draw(rng, shape):
        sizes = dict(zip("bhqk", shape, strict=True))
        given = (rng.integers(0, high, [sizes[a] for a in of]) for of in axes)
        return rng.standard_normal(shape), *given

    return draw


def two_masks(rng, shape):
    """Scores and two masks that broadcast over the heads."""
    batch, _, queries, keys = shape
    masks = rng.random((2, batch, 1, queries, keys)) < 0.6
    return rng.standard_normal(shape), *masks


def mask_rows():
    """Each mask on scores of a shape."""
    shapes = ((2, 2, 3, 4),)

    def row(name, make, draw, **options):
        return FunctionRow(
            f"functional.{name}", choose(make), getattr(attention, name), draw, shapes, options
        )

    def causal(scores, **options):
        return f.causal_mask(*scores.shape[-2:], **options)

    def local(scores, window, **options):
        queries, keys = scores.shape[-2:]
        return f.local_mask(queries, window, keys, **options)

    yield row("causal_mask", causal, integers(0), query_offset=0)
    yield row("causal_mask", causal, integers(0), query_offset=1)
    yield row("local_mask", local, integers(0), window=1, query_offset=0)
    yield row("local_mask", local, integers(0), window=(0, 2), query_offset=1)
    yield row("padding_mask", lambda s, n: f.padding_mask(n, s.shape[-1]), integers(5, "b"))
    yield row("segment_mask", lambda s, q, k: f.segment_mask(q, k), integers(2, "bq", "bk"))
    yield row("combine_masks", lambda s, a, b: f.combine_masks(a, None, b), two_masks)


# The layer


def rms_norm(x, scale):
    """As `nn.rms_norm()` normalises."""
    return normalization.rms_norm(x, scale, epsilon=1e-6)


def multi_head(params, x, source, n, kv_n=None, *, rotary=False, alibi=False, norm=None, **options):
    """The layer: affine maps, norm and rotation around attention, then an affine map.

    Its backward pass is that of its parts in reverse. x gets the gradient of the query; its
    source (a memory, or x itself) the sum of those of key and value. Returns `(y, backward)` with
    `backward(dy) -> (dparams, dx, dsource, dbias)`.
    """
    pulls = []  # (part, name of its params or None, its pullback), in the order of the pass

    def affine(part, name, x):
        leaves = params[name].get("kernel"), params[name].get("bias")
        y, pull = dense.linear(x, *leaves)
        pulls.append((part, name, ("kernel", "bias"), pull))
        return y

    def split_heads(part, y, heads):
        pulls.append((part, None, (), lambda dy: (dy.reshape(y.shape),)))
        return y.reshape(*y.shape[:-1], heads, -1)

    parts = {}
    for part, given, heads in (
        ("query", x, n),
        ("key", source, kv_n or n),
        ("value", source, kv_n or n),
    ):
        parts[part] = split_heads(part, affine(part, part, given), heads)
    for part in ("query", "key"):
        if norm is not None:
            parts[part], pull = norm(parts[part], params[f"{part}_norm"]["scale"])
            pulls.append((part, f"{part}_norm", ("scale",), pull))
        if rotary:
            parts[part], pull = positions.rotary(parts[part], np.arange(parts[part].shape[-3]))
            pulls.append((part, None, (), pull))
    bias = options.pop("bias", None)
    if alibi:
        places = np.arange(x.shape[-2]), np.arange(source.shape[-2])
        linear_bias, _ = positions.alibi_bias(positions.alibi_slopes(n)[0], *places)
        bias = linear_bias if bias is None else bias + linear_bias
    sinks = params.get("sinks")
    attended, pull_attention = attention.dot_product_attention(
        **parts, bias=bias, sinks=sinks, **options
    )
    joined = attended.reshape(*attended.shape[:-2], -1)
    y, pull_out = dense.linear(joined, params["out"]["kernel"], params["out"].get("bias"))

    def backward(dy):
        gradients = {}

        def keep_gradients(name, leaves, given):
            named = zip(leaves, given, strict=False)
            gradients[name] = {leaf: g for leaf, g in named if g is not None}

        djoined, *of_out = pull_out(dy)
        keep_gradients("out", ("kernel", "bias"), of_out)
        inner = pull_attention(djoined.reshape(attended.shape))
        if sinks is not None:
            gradients["sinks"] = inner[5]
        d = dict(zip(parts, inner[:3], strict=True))
        for part, name, leaves, pull in reversed(pulls):
            d[part], *of_params = pull(d[part])
            if name is not None:
                keep_gradients(name, leaves, of_params)
        return gradients, d["query"], d["key"] + d["value"], inner[3]

    return y, backward


def linear_self_attention(n, **options):
    """Affine maps around linear attention."""

    def apply(params, state, x, *, key, train):
        pulls = {}

        def affine(name, x):
            y, pulls[name] = dense.linear(x, params[name]["kernel"], params[name]["bias"])
            return y

        heads = [
            affine(name, x).reshape(*x.shape[:-1], n, -1) for name in ("query", "key", "value")
        ]
        (attended, sums), pull = attention.linear_attention(*heads, **options)
        y = affine("out", attended.reshape(*x.shape[:-1], -1))

        def backward(dy):
            gradients = {}

            def through(name, dy):
                dx, *leaves = pulls[name](dy)
                gradients[name] = dict(zip(("kernel", "bias"), leaves, strict=True))
                return dx

            dattended = through("out", dy).reshape(attended.shape)
            of_heads = pull((dattended, np.zeros(sums.shape)))
            dx = 0
            for name, d in zip(("query", "key", "value"), of_heads, strict=False):
                dx = dx + through(name, d.reshape(*d.shape[:-2], -1))
            return gradients, dx

        return y, backward

    return apply


def self_attention(n, *arguments, rate=0.0, **options):
    """The layer on one sequence; its dropout is the one that the library draws."""

    def apply(params, state, x, *, key, train):
        dropped = {}
        if train and rate:
            shape = (x.shape[0], n, x.shape[1], x.shape[1])
            kept = keep(child_key(key, "dropout"), rate, shape)
            dropped = {"keep": kept, "dropout_rate": rate}
        y, backward = multi_head(params, x, x, n, *arguments, **options, **dropped)

        def pullback(dy):
            gradients, dx, dsource, _ = backward(dy)
            return gradients, dx + dsource

        return y, pullback

    return apply


# Cross-attention with a mask and a bias, whose parameters are arguments: kernels and biases in turn

NAMES = ("query", "key", "value", "out")


def cross_arguments(rng, shape):
    """x, memory, bias, mask, and parameters of two heads with two features each."""
    batch, time, keys, features = shape
    mask = rng.random((batch, 1, time, keys)) < 0.7
    mask[0, 0, 0] = False
    given = [(batch, time, features), (batch, keys, 5), (1, 2, time, keys)]
    x, memory, bias = (rng.standard_normal(size) for size in given)
    kernels = {"query": (features, 4), "key": (5, 4), "value": (5, 4), "out": (4, features)}
    leaves = [rng.standard_normal(s) for size in kernels.values() for s in (size, size[-1:])]
    return x, memory, bias, mask, *leaves


def params_of(leaves):
    """The params dict of kernels and biases in turn."""
    pairs = zip(leaves[::2], leaves[1::2], strict=True)
    return {n: {"kernel": k, "bias": b} for n, (k, b) in zip(NAMES, pairs, strict=True)}


def cross_attention(x, memory, bias, mask, *leaves):
    """The layer with all its keywords; without rotation the bias of the key would do nothing."""
    layer = nn.attention(2, head_dim=2, positions=nn.rotary())
    return layer.apply(params_of(leaves), {}, x, memory=memory, bias=bias, mask=mask)[0]


def cross_attention_reference(x, memory, bias, mask, *leaves):
    """The same by hand."""
    y, backward = multi_head(params_of(leaves), x, memory, 2, rotary=True, bias=bias, mask=mask)

    def pullback(dy):
        gradients, dx, dmemory, dbias = backward(dy)
        of_leaves = [gradients[n][leaf] for n in NAMES for leaf in ("kernel", "bias")]
        return dx, dmemory, dbias, None, *of_leaves

    return y, pullback


LAYERS = (
    LayerRow(
        "linear_attention",
        "linear_attention(2, is_causal=True)",
        lambda: nn.linear_attention(2, is_causal=True),
        ((2, 3, 4),),
        linear_self_attention(2, is_causal=True),
    ),
    LayerRow(
        "attention",
        "attention(2)",
        lambda: nn.attention(2),
        ((2, 3, 4),),
        self_attention(2),
    ),
    LayerRow(
        "attention_rotary_groups",
        "attention(2, num_kv_heads=1, head_dim=2, is_causal=True, positions=rotary(), "
        "use_bias=False)",
        lambda: nn.attention(
            2, num_kv_heads=1, head_dim=2, is_causal=True, positions=nn.rotary(), use_bias=False
        ),
        ((2, 3, 5),),
        self_attention(2, 1, rotary=True, is_causal=True),
    ),
    LayerRow(
        "attention_scale_some_biases",
        "attention(2, use_bias={'value': True, 'out': True}, scale=0.3)",
        lambda: nn.attention(2, use_bias={"value": True, "out": True}, scale=0.3),
        ((2, 3, 4),),
        self_attention(2, scale=0.3),
    ),
    LayerRow(
        "attention_soft_cap_sinks",
        "attention(2, is_causal=True, soft_cap=1.5, use_sinks=True)",
        lambda: nn.attention(2, is_causal=True, soft_cap=1.5, use_sinks=True),
        ((2, 3, 4),),
        self_attention(2, is_causal=True, soft_cap=1.5),
    ),
    LayerRow(
        "attention_norm_alibi_window",
        "attention(2, out_features=3, window=1, positions=alibi(), qk_norm=rms_norm())",
        lambda: nn.attention(
            2, window=1, positions=nn.alibi(), qk_norm=nn.rms_norm(), out_features=3
        ),
        ((2, 4, 4),),
        self_attention(2, alibi=True, norm=rms_norm, window=1),
    ),
    LayerRow(
        "attention_dropout",
        "attention(2, dropout_rate=0.5)",
        lambda: nn.attention(2, dropout_rate=0.5),
        ((2, 3, 4),),
        self_attention(2, rate=0.5),
        is_random=True,
    ),
)
FUNCTIONS = (
    *attention_rows(),
    *linear_rows(),
    *mask_rows(),
    FunctionRow(
        "attention", cross_attention, cross_attention_reference, cross_arguments, ((2, 3, 4, 3),)
    ),
)
