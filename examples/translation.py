"""Translation: from numbers in words to digits, by a transformer with encoder and decoder.

"three hundred and seven thousand two hundred and one" is 307201. The encoder reads the words; the
decoder writes the digits one by one, and attends to what the encoder made of each word. It is
trained on one number in forty below a million, and tested on others.

Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762
"""

import argparse
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

HEADS, WIDTH, DEPTH, BATCH_SIZE = 4, 64, 2, 128
DIGITS = 6
END = 10  # of a number, and what comes before its first digit

WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
hundred thousand and""".split()  # noqa: SIM905


def in_words(number: int) -> list[str]:
    """An integer from 0 to 999,999 in English."""
    if number < 20:
        return [WORDS[number]]
    if number < 100:
        tens, rest = divmod(number, 10)
        return [WORDS[18 + tens], *(in_words(rest) if rest else [])]
    large, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, large)
    link = ["and"] if 0 < rest < 100 else []
    return [*in_words(count), name, *link, *(in_words(rest) if rest else [])]


def pairs(numbers: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the network sees, words and the digits before each digit, and the digits."""
    place = {word: np.int32(i) for i, word in enumerate(WORDS)}
    texts = [np.array([place[word] for word in in_words(n)]) for n in numbers.tolist()]
    words, mask = nn.pad_to(texts, sizes=[12])
    digits = np.full((len(numbers), DIGITS + 1), END, np.int32)
    for row, number in enumerate(numbers):
        text = str(number)
        digits[row, : len(text)] = [int(digit) for digit in text]
    before = np.concatenate([np.full_like(digits[:, :1], END), digits[:, :-1]], axis=1)
    return {"words": words, "mask": mask, "digits": before}, digits


def translator() -> nn.Layer:
    """From words, and the digits so far, to the logits of each next digit."""
    attention = functools.partial(nn.attention, HEADS, positions=nn.rotary())
    drop = nn.dropout(0.1)

    def forward(f: Any, x: dict[str, jax.Array]) -> Any:
        mask = x["mask"][:, None, None, :]  # (batch, heads, queries, keys)
        memory = f.read(f.words(x["words"]), mask=mask)
        written = f.write(f.digits(x["digits"]), memory=memory, memory_mask=mask)
        return f.out(f.norm(written))

    encoder = nn.transformer_block(attention(), nn.feed_forward(2 * WIDTH), dropout=drop)
    decoder = nn.transformer_block(
        attention(is_causal=True),
        nn.feed_forward(2 * WIDTH),
        cross_attention=nn.attention(HEADS),
        dropout=drop,
    )
    return nn.compose(
        forward,
        words=nn.embedding(len(WORDS), WIDTH),
        read=nn.stack(encoder, DEPTH),
        digits=nn.embedding(END + 1, WIDTH),
        write=nn.stack(decoder, DEPTH),
        norm=nn.layer_norm(),
        out=nn.dense(END + 1),
    )


def translate(model: nn.Layer, params: Any, x: dict[str, jax.Array]) -> Any:
    """The digits that the network writes, each time the most likely, `(batch, DIGITS + 1)`."""

    def write(place: Any, digits: jax.Array) -> jax.Array:
        logits = nn.stateless(model)(params, x | {"digits": digits[:, :-1]})
        return digits.at[:, place + 1].set(jnp.argmax(logits[:, place], axis=-1))

    start = jnp.full((len(x["words"]), DIGITS + 2), END)
    return jax.lax.fori_loop(0, DIGITS + 1, write, start)[:, 1:]


def train(model: nn.Layer, training: Any, epochs: int, seed: int) -> nn.FitResult:
    """Train by AdamW, its learning rate going up in a line and down in a cosine."""
    steps = epochs * (len(training[1]) // BATCH_SIZE)
    learning_rate = nn.schedules.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    return nn.fit(
        model,
        training,
        loss=nn.losses.softmax_cross_entropy,
        optimizer=nn.optimizers.chain(
            nn.optimizers.clip_by_global_norm(1.0),
            nn.optimizers.adamw(learning_rate, weight_decay=1e-2),
        ),
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        progress=True,
    )


def main() -> None:
    """Train, test and show some translations."""
    parser = argparse.ArgumentParser(description="Translate numbers in words to digits.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    numbers = np.random.default_rng(options.seed).permutation(1_000_000)
    test, others = np.sort(numbers[:1000]), numbers[1000:26_600]
    model = translator()
    began = time.perf_counter()
    result = train(model, pairs(others), options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.0f} s, compilation included")

    x, digits = pairs(test)
    written = jax.jit(functools.partial(translate, model))(result.params, x)
    is_right = np.all(np.asarray(written) == digits, axis=-1)
    for row in range(0, 1000, 250):
        text = "".join(str(digit) for digit in np.asarray(written[row]) if digit != END)
        print(f"{' '.join(in_words(int(test[row])))}: {text}")
    print(f"Test accuracy of whole numbers: {np.mean(is_right):.2%}")


if __name__ == "__main__":
    main()
