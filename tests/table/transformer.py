"""Blocks of transformers."""

import jaxnn as nn
from tests import composed_reference as composed
from tests.table.attention import self_attention
from tests.table.rows import LayerRow

NORM = composed.layer_norm(-1)


def block(attention, mlp, *, norm_first):
    """Two branches, each with a sum around it; the gradient takes both ways back."""

    def branch(name, layer, params, x):
        def run(which, child, x):
            return child(params[which], {}, x, key=None, train=False)

        norm = f"{name}_norm"
        if norm_first:
            normed, through_norm = run(norm, NORM, x)
            y, through_layer = run(name, layer, normed)

            def backward(dy):
                dlayer, dnormed = through_layer(dy)
                dnorm, dx = through_norm(dnormed)
                return {name: dlayer, norm: dnorm}, dy + dx

            return x + y, backward

        y, through_layer = run(name, layer, x)
        normed, through_norm = run(norm, NORM, x + y)

        def backward_last(dy):
            dnorm, dsum = through_norm(dy)
            dlayer, dx = through_layer(dsum)
            return {name: dlayer, norm: dnorm}, dsum + dx

        return normed, backward_last

    def apply(params, state, x, *, key, train):
        h, through_attention = branch("attention", attention, params, x)
        y, through_mlp = branch("mlp", mlp, params, h)

        def backward(dy):
            of_mlp, dh = through_mlp(dy)
            of_attention, dx = through_attention(dh)
            return of_attention | of_mlp | {"dropout": {}}, dx

        return y, backward

    return apply


LAYERS = (
    LayerRow(
        "transformer_block",
        "transformer_block(attention(2), dense(4))",
        lambda: nn.transformer_block(nn.attention(2), nn.dense(4)),
        ((2, 3, 4),),
        block(self_attention(2), composed.linear, norm_first=True),
    ),
    LayerRow(
        "transformer_block_norm_last",
        "transformer_block(attention(2, is_causal=True), dense(4), norm_first=False)",
        lambda: nn.transformer_block(
            nn.attention(2, is_causal=True), nn.dense(4), norm_first=False
        ),
        ((2, 3, 4),),
        block(self_attention(2, is_causal=True), composed.linear, norm_first=False),
    ),
    LayerRow(
        "transformer_block_dropout",
        "transformer_block(attention(2), dense(4), dropout=dropout(0.5))",
        lambda: nn.transformer_block(nn.attention(2), nn.dense(4), dropout=nn.dropout(0.5)),
        ((2, 3, 4),),
        is_random=True,
    ),
    LayerRow(
        "autoregressive",
        "recurrent(autoregressive(attention(2, is_causal=True, cache_length=3), features=(4,)))",
        lambda: nn.recurrent(
            nn.autoregressive(nn.attention(2, is_causal=True, cache_length=3), features=(4,))
        ),
        ((2, 3, 4),),
        self_attention(2, is_causal=True),
    ),
)

FUNCTIONS = ()
