"""A hundred steps of many models on one to eight devices; run as a program, prints a table."""

import math
import sys

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

import jaxnn as nn
from tests.collectives import collectives
from tests.compiling import fast_jit

STEPS, BATCH, EXAMPLES = 102, 16, 40  # the last batch of an epoch has 8
FSDP = nn.fsdp("data", min_size=1)
RNG = np.random.default_rng(0)
NUMBERS = RNG.standard_normal((EXAMPLES, 8)).astype(np.float32)
IMAGES = RNG.standard_normal((EXAMPLES, 6, 6, 3)).astype(np.float32)
SERIES = RNG.standard_normal((EXAMPLES, 5, 8)).astype(np.float32)
TOKENS = RNG.integers(0, 16, (EXAMPLES, 6))
LABELS = RNG.integers(0, 8, EXAMPLES)

BLOCK = nn.transformer_block(nn.attention(8, is_causal=True), nn.feed_forward(32))
MODELS = {
    "mlp": (nn.serial(nn.dense(32), nn.tanh, nn.dropout(0.2), nn.dense(8)), NUMBERS, LABELS),
    "cnn": (
        nn.serial(
            nn.conv(8, (3, 3), use_bias=False), nn.batch_norm(), nn.relu, nn.dropout(0.2),
            nn.flatten(), nn.dense(8),
        ),
        IMAGES, LABELS,
    ),
    "transformer": (
        nn.serial(embed=nn.embedding(16, 16), blocks=nn.stack(BLOCK, 3), out=nn.dense(16)),
        TOKENS, np.roll(TOKENS, -1, 1),
    ),
    "lstm": (
        nn.serial(nn.recurrent(nn.lstm_cell(16)), lambda y: y[:, -1], nn.dense(8)), SERIES, LABELS,
    ),
    "mixture": (
        nn.serial(nn.mixture_of_experts(nn.mlp([16, 8]), 4), nn.dense(8)), SERIES[:, 0], LABELS,
    ),
    "embedding": (nn.serial(nn.embedding(16, 8), nn.flatten(), nn.dense(8)), TOKENS, LABELS),
}  # fmt: skip
TENSOR = {
    "blocks/*/query/kernel": (P(None, None, "model"), FSDP),
    "blocks/*/out/kernel": (P(None, "model"), FSDP),
    "*": FSDP,
}
SUMS = {"mlp": 1, "cnn": 1 + 4, "transformer": 1 + 3, "embedding": 1}
"""All-reduces of a step: of the gradients, one more for each layer of a stack, and batch norm's.

The others send activations as well: a mixture sorts the tokens of all devices by expert, and the
gradients of a recurrent layer are formed with the steps in front of the examples.
"""


def run(name, sharding):
    """Parameters, state and history after the steps, and what one step on average sends."""
    model, x, y = MODELS[name]
    train = nn.training_run(
        model,
        loss=nn.losses.softmax_cross_entropy_with_integer_labels,
        optimizer=nn.optimizers.sgd(0.05),
        epochs=STEPS // 3,
        batch_size=BATCH,
        sharding=sharding,
    )
    program = fast_jit(train).lower(jax.random.key(0), (x, y)).compile()
    return program(jax.random.key(0), (x, y)), collectives(program)


def compare(name, form, sizes):
    """Assert that training on so many devices gives the numbers of one, and count what it sends."""
    devices = np.array(jax.devices()[: math.prod(sizes)]).reshape(sizes)
    mesh = jax.sharding.Mesh(devices, ("data", "model")[: len(sizes)])
    sharding = nn.sharding(mesh, params={"data": None, "fsdp": FSDP, "tensor": TENSOR}[form])
    got, counted = run(name, sharding)
    expected, _ = run(name, None)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    deviation = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)
    print(f"{name} {form} {sizes} {deviation:.1e} {counted}", flush=True)
    assert deviation <= 1e-6
    if name in SUMS and form != "tensor":
        check_collectives(name, form, counted, got[0])


def check_collectives(name, form, counted, params):
    """Gradients are summed once; FSDP gathers weights once a pass, and nothing else is sent."""
    size = STEPS * sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    times, sent = counted.pop(("all-reduce", True))
    assert times == STEPS * SUMS[name]
    assert size <= sent <= size + 512 * STEPS
    if form == "fsdp":
        _, gathered = counted.pop(("all-gather", True))
        assert gathered <= 2 * size
    assert not counted


def main(name):
    """All forms of training, on two, four and eight devices."""
    for form, sizes in (("data", (2,)), ("data", (8,)), ("fsdp", (4,)), ("fsdp", (8,))):
        compare(name, form, sizes)
    if name == "transformer":
        compare(name, "tensor", (2, 4))


if __name__ == "__main__":
    main(*sys.argv[1:])
