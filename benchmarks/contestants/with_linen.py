"""flax linen and optax."""

from typing import Any

import jax
import numpy as np
import optax
from flax import linen

from benchmarks.contestants.jax_loops import cross_entropy, squared_error, training
from benchmarks.row import Run


def applied(model: linen.Module) -> Any:
    """`predict(params, x)`."""
    return lambda params, x: model.apply({"params": params}, x)


def mlp(data: Any) -> Run:
    """The MLP."""
    first, second, last = data["weights"]
    sizes = [len(layer["bias"]) for layer in data["weights"]]
    model = linen.Sequential(
        [
            linen.Dense(sizes[0]),
            linen.relu,
            linen.Dense(sizes[1]),
            linen.relu,
            linen.Dense(sizes[2]),
        ]
    )
    params = {"layers_0": first, "layers_2": second, "layers_4": last}
    optimizer = optax.adam(data["learning_rate"])
    return training(applied(model), cross_entropy, optimizer, params, data)


def cnn(data: Any) -> Run:
    """The CNN."""
    first, second, last = data["weights"]

    def pool(x: jax.Array) -> jax.Array:
        return linen.max_pool(x, (2, 2), strides=(2, 2))

    model = linen.Sequential(
        [
            linen.Conv(len(first["bias"]), (3, 3)),
            linen.relu,
            pool,
            linen.Conv(len(second["bias"]), (3, 3)),
            linen.relu,
            pool,
            lambda x: x.reshape(x.shape[0], -1),
            linen.Dense(10),
        ]
    )
    params = {"layers_0": first, "layers_3": second, "layers_7": last}
    optimizer = optax.sgd(data["learning_rate"])
    return training(applied(model), cross_entropy, optimizer, params, data)


def lstm(data: Any) -> Run:
    """The LSTM."""
    recurrent = data["weights"]["recurrent"]["kernel"]
    cell: dict[str, Any] = {}
    for kind, part in (
        ("i", {"kernel": data["weights"]["input"]["kernel"]}),
        ("h", {"kernel": recurrent, "bias": data["weights"]["input"]["bias"]}),
    ):
        for i, gate in enumerate("ifgo"):
            cell[kind + gate] = {k: np.split(v, 4, axis=-1)[i] for k, v in part.items()}
    model = linen.RNN(linen.OptimizedLSTMCell(len(recurrent)))
    optimizer = optax.sgd(data["learning_rate"])
    return training(applied(model), squared_error, optimizer, {"cell": cell}, data)


def gru(data: Any) -> Run:
    """The GRU."""
    weights, cell = data["weights"], {}
    recurrent = np.split(weights["recurrent"]["kernel"], 3, axis=-1)
    for i, gate in enumerate("rzn"):
        cell["i" + gate] = {k: np.split(v, 3, axis=-1)[i] for k, v in weights["input"].items()}
        cell["h" + gate] = {"kernel": recurrent[i]}
    cell["hn"]["bias"] = weights["recurrent"]["bias"]
    model = linen.RNN(linen.GRUCell(len(recurrent[0])))
    optimizer = optax.sgd(data["learning_rate"])
    return training(applied(model), squared_error, optimizer, {"cell": cell}, data)


class Block(linen.Module):
    """A block of the transformer."""

    heads: int

    @linen.compact
    def __call__(self, x: jax.Array, _: Any = None) -> tuple[jax.Array, None]:
        """The block's output, and nothing for `nn.scan` to collect."""
        width, mask = x.shape[-1], linen.make_causal_mask(x[..., 0])
        y = linen.LayerNorm(1e-5, name="attention_norm")(x)
        x = x + linen.MultiHeadDotProductAttention(self.heads, name="attention")(y, mask=mask)
        y = linen.LayerNorm(1e-5, name="mlp_norm")(x)
        y = linen.gelu(linen.Dense(4 * width, name="hidden")(y))
        return x + linen.Dense(width, name="out")(y), None


class Transformer(linen.Module):
    """The transformer, its blocks one after the other or by `linen.scan`."""

    heads: int
    depth: int
    vocabulary: int
    width: int
    scanned: bool

    @linen.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits."""
        x = linen.Embed(self.vocabulary, self.width, name="embed")(tokens)
        shape = (tokens.shape[1], self.width)
        x = x + self.param("positions", linen.initializers.zeros, shape)
        if self.scanned:
            blocks = linen.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth
            )
            x, _ = blocks(self.heads, name="blocks")(x)
        else:
            for i in range(self.depth):
                x, _ = Block(self.heads, name=f"block_{i}")(x)
        x = linen.LayerNorm(1e-5, name="norm")(x)
        return linen.Dense(self.vocabulary, name="logits")(x)


def transformer(data: Any, *, scanned: bool = False) -> Run:
    """The transformer."""
    weights, heads = data["weights"], data["heads"]
    blocks = weights["blocks"]
    depth, width = blocks["mlp_norm"]["bias"].shape
    split = (heads, width // heads)
    attention = {
        name: {
            "kernel": part["kernel"].reshape(depth, width, *split),
            "bias": part["bias"].reshape(depth, *split),
        }
        for name, part in blocks["attention"].items()
    }
    attention["out"] = {
        "kernel": blocks["attention"]["out"]["kernel"].reshape(depth, *split, width),
        "bias": blocks["attention"]["out"]["bias"],
    }
    deep = {
        "attention": attention,
        "attention_norm": blocks["attention_norm"],
        "mlp_norm": blocks["mlp_norm"],
        **blocks["mlp"],
    }
    params = {
        "embed": weights["embed"],
        "positions": weights["positions"]["embedding"],
        "norm": weights["norm"],
        "logits": weights["logits"],
    }
    if scanned:
        params["blocks"] = deep
    else:
        params |= {f"block_{i}": jax.tree.map(lambda a: a[i], deep) for i in range(depth)}  # noqa: B023
    vocabulary = len(weights["logits"]["bias"])
    model = Transformer(heads, depth, vocabulary, width, scanned)
    optimizer = optax.adamw(data["learning_rate"], weight_decay=data["weight_decay"])
    return training(applied(model), cross_entropy, optimizer, params, data)


def transformer_scanned(data: Any) -> Run:
    """The transformer with `linen.scan` over its depth."""
    return transformer(data, scanned=True)
