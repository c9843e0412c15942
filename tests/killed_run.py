"""Runs of `fit` with checkpoints at every chance, for the tests to kill.

A line of standard input, "CASE DIRECTORY", is one life of a run. It is forked off before JAX has
begun, which costs less than to start Python. It prints its process and then each step; after its
end, "ended" and the exit status are printed.
"""

import os
import signal
import sys
import time
import traceback

import jax
import numpy as np

import jaxnn as nn
from jaxnn._training.host import checkpoints, clock

RNG = np.random.default_rng(0)
X = RNG.normal(size=(22, 3)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int32) + (X[:, 1] > 0)
MODEL = nn.serial(
    nn.dense(6, use_bias=False), nn.batch_norm(), nn.relu, nn.dropout(0.25), nn.dense(3)
)
EPOCHS = 30


def optimizers():
    """By the names of the cases; one has a key, which JAX makes."""
    o = nn.optimizers
    return {
        "sgd": o.sgd(0.1, momentum=0.9),
        "adamw": o.adamw(1e-2, weight_decay=0.1),
        "muon": o.muon(1e-2),
        "adafactor": o.adafactor(1e-2),
        "schedule_free": o.schedule_free_adamw(1e-2),
        "lookahead": o.lookahead(o.adam(nn.schedules.cosine_decay_schedule(1e-2, 90)), 3, 0.5),
        "average": o.params_ema(o.accumulate(o.lion(1e-3), 2), 0.9),
        "noise": o.chain(o.add_noise(0.1, 0.5, jax.random.key(3)), o.adam(1e-2)),
        "plateau": o.chain(o.adam(1e-2), o.reduce_on_plateau(patience=2)),
        "lbfgs": o.lbfgs(),
        "loss_scale": o.dynamic_loss_scale(o.adam(1e-2), period=5),
    }


def batches(epoch):
    """A stream that is the same in each life."""
    order = np.random.default_rng(epoch).permutation(22)
    for i in range(0, 22, 8):
        rows = order[i : i + 8]
        yield X[rows], LABELS[rows]


def run(case, checkpoint=None, resume=False, callbacks=(), epochs=EPOCHS):
    """One life of the run."""
    streamed = case == "stream"
    return nn.fit(
        MODEL,
        batches if streamed else (X, LABELS),
        loss=nn.losses.softmax_cross_entropy,
        optimizer=optimizers()["adamw" if streamed or case == "members" else case],
        key=jax.random.key(1),
        epochs=epochs,
        batch_size=None if streamed else 8,
        validation=(X[:7] + 0.1, LABELS[:7]),
        early_stopping=nn.early_stopping("loss", patience=EPOCHS - 1),
        metrics={"accuracy": nn.metrics.accuracy()},
        callbacks=callbacks,
        members=2 if case == "members" else None,
        checkpoint=checkpoint,
        resume=resume,
    )


def live(case, directory):
    """Save after each step, and be slow enough to be killed; the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(1800)  # whoever hangs is ended, on the slowest machine too
    print(os.getpid(), flush=True)
    checkpoints.SECONDS_BETWEEN = 0.0
    clock.SECONDS_PER_CHUNK = 0.0

    def tell(event):
        print(event.step, flush=True)
        time.sleep(0.002)

    try:
        run(case, directory, resume=True, callbacks=[nn.callbacks.Callback(on_step_chunk=tell)])
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    for line in sys.stdin:
        life = os.fork()
        if life == 0:
            os._exit(live(*line.rstrip().split(maxsplit=1)))
        print("ended", os.waitstatus_to_exitcode(os.waitpid(life, 0)[1]), flush=True)
