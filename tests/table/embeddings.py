"""Embeddings of integers, and the way back."""

import numpy as np

import jaxnn as nn
from tests.numpy_reference import activations, embeddings
from tests.table.rows import FunctionRow, LayerRow


def ids_and_table(rng, shape):
    """Integers below 5, some of them several times, and a table."""
    return np.asarray(rng.integers(0, 5, shape)), rng.standard_normal((5, 3))


def bags_table_and_weights(rng, shape):
    """Bags of which the first is padding alone, a table, and weights."""
    ids, table = ids_and_table(rng, shape)
    ids[0] = 1
    return ids, table, rng.standard_normal(shape)


def bags_and_table(rng, shape):
    """The same without weights."""
    return bags_table_and_weights(rng, shape)[:2]


def features_and_table(rng, shape):
    """Features and a table."""
    return rng.standard_normal(shape), rng.standard_normal((4, shape[-1]))


def logits_and_tokens(rng, shape):
    """Logits over a vocabulary, and a token for each row of them."""
    return 3 * rng.standard_normal(shape), np.asarray(rng.integers(0, shape[-1], shape[:-1]))


def tied(f, ids):
    """The logits of a model that decodes with the table it embeds with."""
    return f.embed(nn.tanh(f.embed(ids)), attend=True)


def embedding_layer(params, state, x, *, key, train):
    """The rows of the table; ids have no gradient."""
    y, backward = embeddings.embed(x, params["embedding"])
    return y, lambda dy: ({"embedding": backward(dy)[1]}, None)


def bag_layer(params, state, x, *, key, train):
    """The mean of the rows that are no padding."""
    y, backward = embeddings.embed_bag(x, params["embedding"], padding_idx=0)
    return y, lambda dy: ({"embedding": backward(dy)[1]}, None)


def tied_layer(params, state, x, *, key, train):
    """y = tanh(E[ids]) E^T: both uses add to the gradient of E."""
    table = params["embed"]["embedding"]
    rows, embed_backward = embeddings.embed(x, table)
    h, tanh_backward = activations.tanh(rows)
    y, attend_backward = embeddings.attend(h, table)

    def backward(dy):
        dh, by_attend = attend_backward(dy)
        _, by_embed = embed_backward(*tanh_backward(dh))
        return {"embed": {"embedding": by_attend + by_embed}}, None

    return y, backward


LAYERS = (
    LayerRow(
        "embedding",
        "embedding(5, 3)",
        lambda: nn.embedding(5, 3),
        ((4,), (), (2, 3)),
        embedding_layer,
        vocabulary=5,
    ),
    LayerRow(
        "embedding_bag",
        "embedding_bag(5, 3, padding_idx=0)",
        lambda: nn.embedding_bag(5, 3, padding_idx=0),
        ((4, 3),),
        bag_layer,
        vocabulary=5,
    ),
    LayerRow(
        "compose_tied",
        "compose(tied, embed=embedding(5, 3))",
        lambda: nn.compose(tied, embed=nn.embedding(5, 3)),
        ((2, 4),),
        tied_layer,
        vocabulary=5,
    ),
)

FUNCTIONS = (
    FunctionRow(
        "functional.embed",
        nn.functional.embed,
        embeddings.embed,
        ids_and_table,
        ((), (8,), (2, 3)),
    ),
    FunctionRow(
        "functional.embed_bag",
        nn.functional.embed_bag,
        embeddings.embed_bag,
        bags_table_and_weights,
        ((3, 4),),
        {"mode": "sum", "padding_idx": 1},
    ),
    *(
        FunctionRow(
            "functional.embed_bag",
            nn.functional.embed_bag,
            embeddings.embed_bag,
            bags_and_table,
            ((3, 4),),
            {"mode": mode, "padding_idx": 1},
        )
        for mode in ("mean", "max")
    ),
    FunctionRow(
        "functional.attend",
        nn.functional.attend,
        embeddings.attend,
        features_and_table,
        ((3,), (2, 3), (2, 2, 3)),
    ),
    FunctionRow(
        "functional.token_log_probs",
        nn.functional.token_log_probs,
        embeddings.token_log_probs,
        logits_and_tokens,
        ((4,), (2, 1), (2, 3, 5)),
    ),
)
