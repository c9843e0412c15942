"""A graph network: name 1,797 digits, of which only 20 have labels.

Each image of scikit-learn's digits is a node; edges go to the ten images that are most alike. In
each layer of the network a node takes up the mean of its neighbours, so that labels reach the
images around them. The same network without edges shows what they tell.

Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks,
https://arxiv.org/abs/1609.02907
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn
from jaxnn.functional import gather, segment_sum

try:
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(
        f"{error}: this example needs scikit-learn: pip install scikit-learn"
    ) from error

NEIGHBOURS, LABELS_OF_EACH = 10, 2


def load(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The graph, the labels, and which of them are known: as many of each digit."""
    digits = load_digits()
    nodes = (digits.data / 16).astype(np.float32)
    distances = np.sum(nodes**2, 1)[:, None] - 2 * nodes @ nodes.T + np.sum(nodes**2, 1)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :NEIGHBOURS].reshape(-1)
    ends = np.repeat(np.arange(len(nodes)), NEIGHBOURS)
    senders, receivers = np.concatenate([nearest, ends]), np.concatenate([ends, nearest])
    graph = {"nodes": nodes, "senders": senders, "receivers": receivers}

    _, known = nn.split(
        np.arange(len(nodes)), 10 * LABELS_OF_EACH, jax.random.key(seed), stratify=digits.target
    )
    return graph, digits.target.astype(np.int32), np.isin(np.arange(len(nodes)), known)


def graph_convolution(features: int) -> nn.Layer:
    """`D^-1/2 (A + I) D^-1/2 X W`: a node is its own neighbour too, of the degrees in D."""

    def forward(f: Any, nodes: jax.Array, *, senders: jax.Array, receivers: jax.Array) -> Any:
        def received(messages: jax.Array) -> jax.Array:
            return segment_sum(messages, receivers, len(nodes))

        scale = (1 + received(jnp.ones(len(receivers))))[:, None] ** -0.5
        h = scale * f.dense(nodes)
        return scale * (h + received(gather(h, senders)))

    return nn.compose(forward, dense=nn.dense(features))


def network(hidden: int = 64) -> nn.Layer:
    """From a graph to the logits of each of its nodes."""

    def forward(f: Any, graph: dict[str, jax.Array]) -> Any:
        edges = {name: graph[name] for name in ("senders", "receivers")}
        h = f.drop(nn.relu(f.first(graph["nodes"], **edges)))
        return f.second(h, **edges)

    return nn.compose(
        forward,
        first=graph_convolution(hidden),
        drop=nn.dropout(0.5),
        second=graph_convolution(10),
    )


def train(model: nn.Layer, graph: Any, labels: Any, known: Any, steps: int, seed: int) -> Any:
    """The logits after training on what is known; the whole graph is one batch, one example."""
    optimizer = nn.optimizers.adamw(1e-2, weight_decay=1e-2)

    def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
        logits, state = model.apply(params, state, graph, key=key, train=True)
        losses = nn.losses.softmax_cross_entropy(logits, labels)
        return jnp.sum(losses * known) / jnp.sum(known), (state, {})

    def run(key: jax.Array) -> Any:
        init_key, train_key = jax.random.split(key)
        params, state = model.init(init_key, graph)
        start = nn.train_state(params, state, optimizer, train_key)
        end, _ = jax.lax.scan(nn.train_step(loss_fn, optimizer), start, length=steps)
        logits, _ = model.apply(end.params, end.state, graph)
        return logits

    return jax.jit(run)(jax.random.key(seed))


def main() -> None:
    """Train and test, with edges and without."""
    parser = argparse.ArgumentParser(description="Name digits by those that are like them.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the labels and of training")
    options = parser.parse_args()

    graph, labels, known = load(options.seed)
    began = time.perf_counter()
    no_edges = {name: np.zeros(0, int) for name in ("senders", "receivers")}
    for name, seen in [("without edges", graph | no_edges), ("with edges", graph)]:
        logits = train(network(), seen, labels, known, options.steps, options.seed)
        right = (np.argmax(logits, axis=-1) == labels)[~known]
        print(f"Accuracy {name}, of {len(right)} images without a label: {np.mean(right):.2%}")
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")


if __name__ == "__main__":
    main()
