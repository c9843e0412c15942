"""A bad value of any argument of any public function is refused by the name of the argument."""

import inspect
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from jax.typing import ArrayLike

import jaxnn as nn
from tests.bad_values.calls import ADAPTED, PARAMS, calls
from tests.bad_values.legal import excused, legal
from tests.bad_values.outcomes import VALUES, outcome
from tests.test_completeness import PUBLIC, from_jax

CALLS = calls()
if find_spec("flatbuffers") is None:  # of the extra `export`
    del CALLS["export"]


def by_package():
    """The calls by the package of what is called."""
    groups = {}
    for call in CALLS.values():
        _, package, *_ = call.function.__module__.split(".")
        groups.setdefault(package, []).append(call)
    return groups


GROUPS = by_package()


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory):
    """A directory with what is to be read, and errors with all of their frames."""
    filtering = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("files"))
        nn.save("saved.safetensors", PARAMS)
        nn.export_params("imported", PARAMS, {"": "fc"})
        nn.export_lora("adapter", ADAPTED, {"": "fc"})
        yield
    jax.config.update("jax_traceback_filtering", filtering)


def wrong(call, chosen):
    """The arguments whose values do not end as they should, of those chosen from (must, may)."""
    found = {}
    for parameter in call.parameters:
        must, may = legal(call, parameter.name)
        for label in chosen(must, may) - excused(call, parameter.name):
            end, message = outcome(call, parameter.name, VALUES[label])
            if label in must:
                is_right = end == "works"
            else:
                is_right = end == "refused" or (end == "works" and label in may)
            if not is_right:
                found[f"{call.name}: {parameter.name}={label}"] = f"{end} {message}"
    return found


@pytest.mark.parametrize("package", GROUPS)
def test_bad_values_are_refused_by_name(package):
    found = [wrong(call, lambda must, may: VALUES.keys() - must - may) for call in GROUPS[package]]
    assert [entry for entry in found if entry] == []


@pytest.mark.slow
@pytest.mark.parametrize("package", GROUPS)
def test_legal_values_work(package):
    for call in GROUPS[package]:
        call.run()
    found = [wrong(call, lambda must, may: must | may) for call in GROUPS[package]]
    assert [entry for entry in found if entry] == []


@pytest.mark.slow
@pytest.mark.parametrize("package", ["functional", "losses"])
def test_lists_of_numbers_are_arrays(package):
    for call in GROUPS[package]:
        call = call._replace(use=lambda result: result)
        arrays = {
            p.name: value.tolist()
            for p in call.parameters
            if p.annotation in (ArrayLike, ArrayLike | None)
            and isinstance(value := call.arguments.get(p.name), jax.Array)
        }
        with jax.debug_key_reuse(False):
            jax.tree.map(np.testing.assert_array_equal, call.run(**arrays), call.run())


def test_every_public_function_is_called():
    functions = {
        name
        for name, value in PUBLIC.items()
        if inspect.isfunction(value) and not from_jax(value) and inspect.signature(value).parameters
    }
    assert functions - CALLS.keys() <= {"export"}
