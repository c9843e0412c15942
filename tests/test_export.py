"""`nn.export`: programs that run without jaxnn."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn._files.deployment import _plain

X = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
MODEL = nn.serial(nn.dense(4), nn.batch_norm(), nn.relu, nn.dense(2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.jax"


def read(path):
    return jax.export.deserialize(bytearray(path.read_bytes()))


def drawn(key):
    params, state = MODEL.init(key, X)
    return params, jax.tree.map(lambda leaf: leaf + 0.5, state)


def test_program_has_params_and_state_in_it(path, key):
    params, state = drawn(key)
    nn.export(path, MODEL, params, X[:1], state=state, symbolic="batch, ...", vjp_order=1)
    program = read(path)
    assert [str(aval) for aval in program.in_avals] == ["float32[batch,3]"]
    assert program.platforms == ("cpu", "cuda", "tpu")
    expected = MODEL.apply(params, state, X)[0]
    np.testing.assert_allclose(program.call(X), expected, rtol=1e-6)

    def total(f):
        return jax.grad(lambda x: jnp.sum(f(x) ** 2))(X)

    own = total(lambda x: MODEL.apply(params, state, x)[0])
    np.testing.assert_allclose(total(program.call), own, rtol=1e-5)


def test_program_without_params_takes_others(path, key):
    params, state = drawn(key)
    shapes = jax.eval_shape(lambda: (params, state))
    nn.export(path, MODEL, shapes[0], X, state=shapes[1], with_params=False, platforms=["cpu"])
    other = jax.tree.map(lambda leaf: 2 * leaf, params)
    expected = MODEL.apply(other, state, X)[0]
    np.testing.assert_allclose(read(path).call(other, state, X), expected, rtol=1e-6)


def test_training_step_speaks_in_dicts(path, key):
    """Leaves of a named tuple lie in the order of its fields, those of a dict in the alphabet's."""
    optimizer = nn.optimizers.adam(0.1)

    def loss_fn(params, state, batch, key):
        y, state = MODEL.apply(params, state, batch, key=key, train=True)
        return jnp.mean(y**2), (state, {})

    step = nn.train_step(loss_fn, optimizer)
    start = nn.train_state(*drawn(key), optimizer, jax.random.key(1))
    nn.export(path, lambda arguments: step(*arguments), {}, (start, X), platforms=["cpu"])
    program = read(path)
    given = start._asdict() | {"opt_state": (start.opt_state[0]._asdict(), {})}
    now, metrics = program.call((given, X))
    expected, own = jax.jit(step)(start, X)
    assert now.keys() == set(start._fields)
    np.testing.assert_allclose(metrics["loss"], own["loss"], rtol=1e-6)
    mu = now["opt_state"][0]["mu"]
    for a, b in zip(jax.tree.leaves(mu), jax.tree.leaves(expected.opt_state[0].mu), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    with jax.debug_key_reuse(False):  # which takes the key for one that the first call has used
        assert int(program.call((now, X))[0]["step"]) == 2


def test_containers_become_those_of_the_standard_library():
    Pair = nn.optimizers.adam(0.1).init({"w": 1.0})[0].__class__  # a named tuple
    tree = {10: [Pair(1, {"w": 2}, (3, None))], 2: ()}
    assert _plain(tree) == {"10": [{"count": 1, "mu": {"w": 2}, "nu": (3, None)}], "2": ()}


def test_symbolic_axes_by_array(path):
    def weighted(inputs):
        return inputs["w"] * jnp.sum(inputs["x"], axis=1)

    example = {"w": X[:, 0], "x": X}
    nn.export(path, weighted, {}, example, symbolic={"w": None, "x": "_, time"}, platforms=["cpu"])
    given = {"w": X[:, 0], "x": np.ones((5, 7), np.float32)}
    np.testing.assert_allclose(read(path).call(given), X[:, 0] * 7, rtol=1e-6)


WRONG = [
    ({"symbolic": "batch"}, ValueError, "has 1 axes, expected 2 for an array of shape"),
    ({"symbolic": "2 batch, ..."}, ValueError, "symbolic is '2 batch, ...'.*syntax error"),
    ({"symbolic": {"a": "batch, 3"}}, ValueError, "expected the shapes of x"),
    ({"platforms": ["metal"]}, TypeError, "platforms"),
    ({"platforms": []}, ValueError, "platforms is empty"),
    ({"vjp_order": -1}, ValueError, "vjp_order is -1"),
    ({"params": {"kernel": jax.ShapeDtypeStruct((3, 2), np.float32)}}, TypeError, "'kernel'"),
    ({"params": {"kernel": np.broadcast_to(np.float32(0), (2**15, 2**15))}}, ValueError, "bytes"),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG)
def test_wrong_arguments_leave_the_file_as_it_was(path, wrong, kind, message):
    path.write_text("old")
    arguments = {"params": {"kernel": np.ones((3, 2), np.float32)}} | wrong
    with pytest.raises(kind, match=f"^export: .*{message}"):
        nn.export(path, nn.dense(2, use_bias=False), x=X, **arguments)
    assert [file.read_text() for file in path.parent.iterdir()] == ["old"]


def test_missing_package_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match="pip install flatbuffers"):
        nn.export(path, nn.relu, {}, X)
