"""Text classification: from which play of Shakespeare's is it?

The text is tiny Shakespeare, plays in which each speech stands below the name of its speaker. Of
the speeches in six plays a fifth is held out for the test, as many in a hundred of each. A network
sees the words of a speech as vectors, and judges by their sum; speeches of different lengths are
padded, and the mask says where. There are few speeches and many words, so that in training half of
the words are left out, and the weights decay fast.

    python examples/text_classifier.py tinyshakespeare.txt
"""

import argparse
import collections
import re
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

VOCABULARY, BATCH_SIZE = 6000, 64
PLAYS = {
    "Coriolanus": "MENENIUS CORIOLANUS MARCIUS SICINIUS BRUTUS COMINIUS VOLUMNIA AUFIDIUS",
    "Measure for Measure": "DUKE_VINCENTIO ISABELLA LUCIO ANGELO ESCALUS POMPEY CLAUDIO",
    "Richard III": "KING_RICHARD_III BUCKINGHAM HASTINGS RICHMOND STANLEY DERBY LADY_ANNE",
    "Romeo and Juliet": "ROMEO JULIET MERCUTIO BENVOLIO Nurse FRIAR_LAURENCE CAPULET TYBALT",
    "The Taming of the Shrew": "PETRUCHIO TRANIO KATHARINA HORTENSIO GRUMIO BAPTISTA LUCENTIO",
    "The Winter's Tale": "LEONTES PAULINA CAMILLO POLIXENES FLORIZEL PERDITA AUTOLYCUS HERMIONE",
}


def load(path: Path) -> tuple[list[list[str]], np.ndarray]:
    """The words of each speech of ten or more, and the number of its play."""
    play_of = {
        speaker.replace("_", " "): number
        for number, speakers in enumerate(PLAYS.values())
        for speaker in speakers.split()
    }
    pieces = re.findall(r"^(.+):\n((?:.+\n)+)", path.read_text("utf-8"), re.MULTILINE)
    speeches = [(play_of[name], text.lower()) for name, text in pieces if name in play_of]
    words = [(play, re.findall(r"[a-z']+|[?!]", text)) for play, text in speeches]
    long = [(play, speech) for play, speech in words if len(speech) >= 10]
    return [speech for _, speech in long], np.array([play for play, _ in long], np.int32)


def numbered(speeches: list[list[str]], words: dict[str, int]) -> Any:
    """Speeches as `{"words", "mask"}`, `(n, time)`; 1 is for words that are not known."""
    ids = [np.array([words.get(word, 1) for word in speech], np.int32) for speech in speeches]
    padded, mask = nn.pad_to(ids, sizes=[max(map(len, ids))])
    return {"words": padded, "mask": mask}


def classifier(features: int = 32) -> nn.Layer:
    """From speeches to the logits of the plays."""

    def forward(f: Any, x: dict[str, jax.Array]) -> Any:
        mask = x["mask"][..., None]
        words = f.drop(mask * f.embed(x["words"]))
        return f.out(jnp.sum(words, axis=1) / jnp.sqrt(jnp.sum(mask, axis=1)))

    return nn.compose(
        forward,
        embed=nn.embedding(VOCABULARY, features, embedding_init=nn.initializers.normal(0.05)),
        drop=nn.dropout(0.5, broadcast_dims=(2,)),  # whole words
        out=nn.dense(len(PLAYS)),
    )


def train(model: nn.Layer, training: Any, epochs: int, seed: int) -> nn.FitResult:
    """Train by AdamW; a play of few speeches counts as much as one of many."""
    x, y = training
    steps = epochs * (len(y) // BATCH_SIZE)
    return nn.fit(
        model,
        (x, y, nn.balanced_weights(y)),
        loss=nn.losses.softmax_cross_entropy,
        optimizer=nn.optimizers.adamw(
            nn.schedules.cosine_decay_schedule(1e-2, steps), weight_decay=1.0
        ),
        key=jax.random.key(seed),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        metrics={"accuracy": nn.metrics.accuracy()},
        progress=True,
    )


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description="Tell the play of a speech.")
    parser.add_argument("text", type=Path, help="tiny Shakespeare")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of training")
    options = parser.parse_args()

    speeches, labels = load(options.text)
    rows = np.arange(len(labels))
    seen, held_out = nn.split(rows, 0.2, jax.random.key(options.seed), stratify=labels)
    counts = collections.Counter(word for row in seen for word in speeches[row])
    words = {word: 2 + i for i, (word, _) in enumerate(counts.most_common(VOCABULARY - 2))}
    data = numbered(speeches, words), labels
    training = jax.tree.map(lambda leaf: leaf[seen], data)
    x_test, y_test = jax.tree.map(lambda leaf: leaf[held_out], data)

    model = classifier()
    began = time.perf_counter()
    result = train(model, training, options.epochs, options.seed)
    print(f"Training time: {time.perf_counter() - began:.1f} s, compilation included")

    predicted = np.argmax(nn.predict(model, result.params, result.state, x_test), axis=-1)
    for number, play in enumerate(PLAYS):
        found = np.mean(predicted[y_test == number] == number)
        print(f"{play}: {np.sum(y_test == number)} speeches, {found:.0%} of them right")
    most_frequent = np.bincount(y_test).max() / len(y_test)
    print(f"Test accuracy of always saying the most frequent play: {most_frequent:.2%}")
    print(f"Test accuracy: {np.mean(predicted == y_test):.2%}")


if __name__ == "__main__":
    main()
