"""Metrics of data on two devices against those of the whole on one; run as a program."""

import functools

import jax
import numpy as np

import jaxnn as nn
from tests.compiling import fast_jit
from tests.numpy_reference import metrics as reference

SPLIT, COPIED = jax.sharding.PartitionSpec("devices"), jax.sharding.PartitionSpec()
N, CLASSES = 24, 3

METRICS = {
    "auc": nn.metrics.roc_auc(CLASSES, average=None),
    "ap": nn.metrics.average_precision(CLASSES),
    "f1": nn.metrics.f1(classes=CLASSES),
    "confusion": nn.metrics.confusion_matrix(CLASSES),
    "accuracy": nn.metrics.accuracy(),
}


def main():
    """Evaluate sharded data, and merge what each device has counted of its half."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    assert len(jax.devices()) == 2
    rng = np.random.default_rng(0)
    scores = np.round(rng.standard_normal((N, CLASSES)), 1).astype(np.float32)  # with ties
    labels = np.sort(rng.integers(0, CLASSES, N)).astype(np.int32)  # so that halves differ
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, SPLIT)
    sharded = jax.device_put((scores, labels), sharding)

    expected = {
        name: metric.compute(metric.update(metric.init(), scores, labels))
        for name, metric in METRICS.items()
    }
    by_hand = [reference.roc_auc(scores[:, c], labels == c) for c in range(CLASSES)]
    np.testing.assert_allclose(expected["auc"], by_hand, rtol=1e-6)

    for batch_size in (None, 5, 8):
        got = nn.evaluate(nn.identity, {}, {}, sharded, metrics=METRICS, batch_size=batch_size)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-6, err_msg=name)

    def merged(metric, scores, labels):
        def half(scores, labels):
            state = metric.update(metric.init(), scores, labels)
            return jax.tree.map(lambda leaf: leaf[None], state)

        mapped = jax.shard_map(half, mesh=mesh, in_specs=(SPLIT, SPLIT), out_specs=SPLIT)
        return metric.compute(nn.metrics.merge_all(mapped(scores, labels)))

    for name, metric in METRICS.items():
        got = fast_jit(functools.partial(merged, metric))(*sharded)
        np.testing.assert_allclose(got, expected[name], rtol=1e-6, err_msg=name)


if __name__ == "__main__":
    main()
