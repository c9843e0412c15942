"""No public name without a row in the table, a hand-derived reference and a full docstring.

Each check is a function of the public names that returns the names it finds wanting, so that it
can itself be checked, on a name that does not exist.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
import types

import pytest

import jaxnn as nn
from jaxnn import _activations
from tests import numpy_reference
from tests.table import FUNCTIONS, LAYERS

MODULES = {
    name: module for name in nn.__all__ if isinstance(module := getattr(nn, name), types.ModuleType)
}


def public_names():
    """Each public name by its module: `dense`, `activations.relu`, `losses.huber_loss`."""
    of_modules = {
        f"{name}.{public}": getattr(module, public)
        for name, module in MODULES.items()
        for public in module.__all__
    }
    # Activations are public at the top, and are told from layers by a prefix.
    of_modules |= {f"activations.{name}": getattr(nn, name) for name in _activations.__all__}
    elsewhere = MODULES.keys() | set(_activations.__all__)
    return of_modules | {name: getattr(nn, name) for name in nn.__all__ if name not in elsewhere}


PUBLIC = public_names()
FAMILIES = ("activations", "functional", "losses", "regularizers")
PUBLIC_MODULES = (*FAMILIES, "optimizers", "schedules", "metrics")


def names_of(*families):
    """The public functions of some modules; classes are no functions of arrays."""
    return [
        name
        for name, value in PUBLIC.items()
        if name.split(".")[0] in families and not inspect.isclass(value)
    ]


CONSTRUCTORS = [  # of layers
    name
    for name, value in PUBLIC.items()
    if getattr(value, "is_constructor", False) and "." not in name
]

# Rows and references


NEEDS_NO_ROW = {
    "parameter": "has no input that could decide a dtype: test_parameter.py checks it",
    "deferred": "returns what it was given: test_losses_linear.py trains with it",
    **dict.fromkeys(
        ("quantized", "quantization_aware"),
        "round on purpose: test_weight_quantization.py compares them with NumPy",
    ),
    "pinned": "moves what another layer gives: test_sharding.py compares it with that",
    "mixed_precision": "rounds on purpose: test_combinators.py compares it with what it wraps",
}


def constructors(row):
    """The layer that a row is of, and the cells that its call mentions."""
    return {row.constructor, *re.findall(r"(?:\w+_cell|autoregressive)(?=\()", row.call)}


def in_rows(layers, functions):
    """The public names that some rows are of."""
    return {row.name for row in functions}.union(*map(constructors, layers))


def without_row(names):
    """Layers, cells, combinators and functions that are in no row of the table."""
    return sorted(set(names) - in_rows(LAYERS, FUNCTIONS) - NEEDS_NO_ROW.keys())


NEEDS_NO_REFERENCE = {
    "metrics.merge": "sums are added and rows put together: checked through the metrics",
    "metrics.merge_all": "the same for a stack of accumulators",
    "metrics.whole_set": "a metric of any function of the whole set",
    "optimizers.add_decayed_weights": "the part of adamw that adamw has and adam has not",
    "optimizers.add_noise": "random: test_optimizer_wrappers.py checks its moments",
    "optimizers.apply_updates": "w + u",
    "optimizers.chain": "one after the other: checked through the optimizers made with it",
    "optimizers.clip_by_block_rms": "a part of adafactor",
    "optimizers.evaluation_params": "the averages of params_ema, lookahead and schedule_free",
    "optimizers.get_state": "finds: test_optimizer_states.py",
    "optimizers.global_norm": "the norm in clip_by_global_norm",
    "optimizers.hutchinson_estimator_diag_hessian": "random: test_optimizers_zoo.py checks it",
    "optimizers.identity": "changes nothing",
    "optimizers.mup_initial_params": "a table: test_mup.py",
    "optimizers.map_params": "test_map_params.py checks it with every optimizer",
    "optimizers.inject_hyperparams": "the optimizer that it makes",
    "optimizers.named_chain": "chain, with names",
    "optimizers.set_state": "finds: test_optimizer_states.py",
    "optimizers.skip_large_updates": "a question, not a rule",
    "optimizers.loss_scale": "a number in the state",
    "optimizers.scale": "a product",
    "optimizers.scale_by_adadelta": "adadelta with rate -1",
    "optimizers.scale_by_adam": "adam with rate -1",
    "optimizers.scale_by_adamax": "adamax with rate -1",
    "optimizers.scale_by_adan": "adan with rate -1",
    "optimizers.scale_by_ademamix": "ademamix with rate -1",
    "optimizers.scale_by_adopt": "adopt with rate -1",
    "optimizers.scale_by_amsgrad": "amsgrad with rate -1",
    "optimizers.scale_by_belief": "adabelief with rate -1",
    "optimizers.scale_by_factored_rms": "a part of adafactor",
    "optimizers.scale_by_learning_rate": "the last part of every optimizer",
    "optimizers.scale_by_lion": "lion with rate -1",
    "optimizers.scale_by_muon": "muon with rate -1",
    "optimizers.scale_by_mup": "a table: test_mup.py",
    "optimizers.scale_by_novograd": "novograd with rate -1",
    "optimizers.scale_by_param_block_rms": "a part of adafactor",
    "optimizers.scale_by_radam": "radam with rate -1",
    "optimizers.scale_by_rms": "rmsprop with rate -1",
    "optimizers.scale_by_rprop": "minus rprop",
    "optimizers.scale_by_rss": "adagrad with rate -1",
    "optimizers.scale_by_schedule": "the learning rate of every optimizer",
    "optimizers.scale_by_sign": "sign_sgd with rate -1",
    "optimizers.scale_by_soap": "soap with rate -1",
    "optimizers.scale_by_sophia": "sophia with rate -1",
    "optimizers.scale_by_stddev": "centered rmsprop with rate -1",
    "optimizers.scale_by_trust_ratio": "a part of lars and lamb",
    "optimizers.scale_by_yogi": "yogi with rate -1",
    "optimizers.schedule_free_eval_params": "the average of schedule_free",
    "optimizers.set_to_zero": "zeros",
    "optimizers.skip_not_finite": "a question, not a rule",
    "optimizers.stochastic_rounding": "random: test_optimizers_narrow.py checks its mean",
    "optimizers.trace": "sgd's momentum",
    "optimizers.value_and_grad_from_state": "what scale_by_zoom_linesearch has found",
}


def family_of(module):
    """The family that a module of references is of: optimizers for `optimizers_adaptive` too."""
    return next((f for f in PUBLIC_MODULES if module.startswith(f.rstrip("s"))), "functional")


def reference_names():
    """The public functions of `numpy_reference`, by the family of what they check."""
    functions = set()
    for info in pkgutil.iter_modules(numpy_reference.__path__):
        module = importlib.import_module(f"{numpy_reference.__name__}.{info.name}")
        functions |= {
            f"{family_of(info.name)}.{name}"
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        }
    return functions


def without_reference(names):
    """Names for which there is neither a reference nor a reason to have none."""
    checked = ([row for row in rows if row.reference is not None] for rows in (LAYERS, FUNCTIONS))
    reasons = NEEDS_NO_REFERENCE.keys() | NEEDS_NO_ROW.keys()
    return sorted(set(names) - in_rows(*checked) - reference_names() - reasons)


# Docstrings


def from_jax(value):
    """Whether a name is re-exported from jax."""
    return getattr(value, "__module__", "").split(".")[0] == "jax"


def raises(value):
    """Whether the function's own code raises or checks its arguments."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    checks = ("check_", "_check_", "check.", "canonical_axes")
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree)) or any(
        name.startswith(checks) for name in called
    )


def missing_sections(value):
    """The parts that the docstring of a public class or function of ours lacks.

    What the arguments are may be said in that of another function, to which it then refers.
    """
    text = inspect.getdoc(value) or ""
    wanted = [">>>"]
    if inspect.isfunction(value):
        wanted.append("Returns:")
        if inspect.signature(value).parameters:
            wanted.append("Args:")
        if raises(value):
            wanted.append("Raises:")
    whole = "\n".join([text, *referred_to(text, inspect.getmodule(value))])
    missing = [s for s in wanted if s not in (whole if s in ("Args:", "Raises:") else text)]
    if inspect.isfunction(value):
        missing += sorted(inspect.signature(value).parameters.keys() - documented(whole))
    return missing


def referred_to(text, module):
    """The docstrings to which one refers as in "See `adam` for the arguments"."""
    for name in re.findall(r"`(\w+)`\s+for\s+(?:the update rule and )?the\s+arguments", text):
        package = importlib.import_module(module.__package__)
        other = inspect.getdoc(getattr(module, name, None) or getattr(package, name))
        yield from (other, *referred_to(other, module))


def documented(text):
    """The arguments that a docstring describes."""
    named = re.findall(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*):", text, re.MULTILINE)
    return {name.strip("*") for names in named for name in names.split(", ")}


def with_poor_docstring(values):
    """What each docstring lacks, by name."""
    found = {name: missing_sections(v) for name, v in values.items() if not from_jax(v)}
    return {name: missing for name, missing in found.items() if missing}


# Classes that are records of results, shown in the examples of what makes them.
RECORDS = {
    "Diagnosis",
    "Finding",
    "FitResult",
    "PartialLoad",
    "SweepResult",
    "TrainState",
    "callbacks.Event",
}

# What optimizers and metrics keep between calls, which the docstrings of these name.
STATES = {
    name
    for name, value in PUBLIC.items()
    if re.match(r"(optimizers|metrics)\.\w+(State|Info|Node|Schedule|Accumulator|Sum)$", name)
    and hasattr(value, "_fields")
}

# What signatures speak of: test_typing.py looks for what explains each.
TYPES = {name for name in PUBLIC if name.startswith("typing.")}


# The tests


def test_every_layer_and_function_has_a_row():
    assert without_row([*CONSTRUCTORS, *names_of(*FAMILIES)]) == []


def test_every_function_layer_optimizer_schedule_and_metric_has_a_reference():
    assert without_reference([*CONSTRUCTORS, *names_of(*PUBLIC_MODULES)]) == []


def test_every_row_is_of_a_public_name():
    assert in_rows(LAYERS, FUNCTIONS) <= PUBLIC.keys()


def test_every_name_is_public_once_or_from_jax():
    by_identity = {}
    for name, value in PUBLIC.items():
        if inspect.isfunction(value) and not from_jax(value):
            assert by_identity.setdefault(value, name) == name


def test_reasons_are_of_public_names_without_a_reference():
    assert NEEDS_NO_REFERENCE.keys() <= PUBLIC.keys()
    assert not NEEDS_NO_REFERENCE.keys() & reference_names()


def test_every_docstring_is_complete():
    others = PUBLIC.keys() - RECORDS - TYPES - STATES
    assert with_poor_docstring({name: PUBLIC[name] for name in others}) == {}


def test_states_that_docstrings_name_are_public_and_the_other_way_round():
    texts = "\n".join(inspect.getdoc(value) or "" for value in PUBLIC.values())
    named = set(re.findall(r"`?\b([A-Z]\w+(?:State|Accumulator|Schedule|Info|Node|Sum))\(", texts))
    assert named - {"TrainState"} == {name.split(".")[1] for name in STATES}


def test_every_public_name_has_a_docstring():
    poor = {name for name, value in PUBLIC.items() if not inspect.getdoc(value)}
    assert poor - TYPES == set()


@pytest.mark.parametrize("check", [without_row, without_reference])
def test_the_check_finds_a_name_that_nobody_knows(check):
    assert check(["losses.unheard_of", "unheard_of"]) == ["losses.unheard_of", "unheard_of"]


def test_the_check_of_docstrings_finds_a_poor_one():
    def poor(x):
        """Return x."""
        if x is None:
            raise ValueError("x is None")
        return x

    found = with_poor_docstring({"poor": poor, "relu": nn.relu})
    assert found == {"poor": [">>>", "Returns:", "Args:", "Raises:", "x"]}
