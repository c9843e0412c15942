"""The table of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

X = jnp.zeros((8, 4))


def rows(*arguments, **options):
    """The table as a dict from path to (layer, output, parameters, bytes, FLOPs)."""
    heading, _, *lines = nn.summary(*arguments, **options).split("\n")
    start = heading.index("layer")
    table = {}
    for line in lines:
        layer, output, *numbers = line[start:].split()
        table[line[:start].strip()] = layer, output, *(int(n.replace(",", "")) for n in numbers)
    return table


def test_a_dense_layer_counts_its_products_and_sums():
    (layer, output, parameters, size, flops) = rows(nn.dense(16), X)[""]
    assert (layer, output) == ("dense", "float32[8,16]")
    assert (parameters, size) == (4 * 16 + 16, 4 * (4 * 16 + 16))
    assert flops == 2 * 8 * 4 * 16 + 8 * 16


def test_children_are_listed_by_their_paths_in_the_order_of_their_calls():
    inner = nn.serial(nn.dense(3), nn.relu)
    table = rows(nn.serial(last=nn.residual(nn.tanh), first=inner), X)
    assert list(table) == ["", "last", "last/layer", "first", "first/0", "first/1"]
    assert [row[0] for row in table.values()] == [
        "serial",
        "residual",
        "tanh",
        "serial",
        "dense",
        "relu",
    ]


def test_depth_limits_the_levels():
    model = nn.serial(nn.serial(nn.serial(nn.dense(3))))
    assert [len(rows(model, X, depth=d)) for d in (0, 1, 2, 3, None)] == [1, 2, 3, 4, 4]


def test_a_stack_has_the_parameters_and_operations_of_all_its_layers():
    block = nn.residual(nn.serial(nn.dense(4), nn.relu))
    one, many = rows(nn.residual(block), X), rows(nn.residual(nn.stack(block, 6)), X)
    for path in ("layer/layer", "layer/layer/0", "layer/layer/1"):
        (_, shape, parameters, _, flops), (_, shape_6, parameters_6, _, flops_6) = (
            one[path],
            many[path],
        )
        assert shape_6 == shape
        assert (parameters_6, flops_6) == (6 * parameters, 6 * flops)
    # The loop itself counts and slices.
    np.testing.assert_allclose(many["layer"][4], 6 * one["layer"][4], rtol=0.1)
    assert many[""][4] > many["layer"][4]


def test_an_ensemble_has_those_of_all_its_members():
    one, many = rows(nn.serial(nn.dense(3)), X), rows(nn.ensemble(nn.serial(nn.dense(3)), 5), X)
    assert many[""][1] == "float32[5,8,3]"
    assert many["0"][1:] == (one["0"][1], *(5 * n for n in one["0"][2:]))


def test_a_child_that_is_called_twice_has_its_parameters_once_and_both_calls():
    def twice(f, x):
        return f.shared(f.shared(x))

    table = rows(nn.compose(twice, shared=nn.dense(4)), X)
    once = rows(nn.dense(4), X)[""]
    assert table["shared"][2] == once[2]
    assert table["shared"][4] == 2 * once[4]


def test_a_stacked_cell_has_a_row_for_each_cell_with_the_operations_of_all_steps():
    x = jnp.zeros((8, 5, 4))
    inner = nn.stacked_cell(nn.gru_cell(3), nn.tanh)
    table = rows(nn.serial(rnn=nn.recurrent(nn.stacked_cell(a=inner, b=nn.dense(2)))), x)
    assert [(path, row[0]) for path, row in table.items()] == [
        ("", "serial"),
        ("rnn", "recurrent"),
        ("rnn/a", "stacked_cell"),
        ("rnn/a/0", "gru_cell"),
        ("rnn/a/1", "tanh"),
        ("rnn/b", "dense"),
    ]
    assert table["rnn/b"][1:] == ("float32[8,2]", 8, 32, 5 * (2 * 8 * 3 * 2 + 8 * 2))
    assert table["rnn/a"][2] == table["rnn/a/0"][2] == table["rnn"][2] - 8
    assert 0 < sum(table[path][4] for path in ("rnn/a", "rnn/b")) < table["rnn"][4]


def test_the_cells_of_both_directions_and_of_decoded_layers_have_their_paths():
    both = nn.summary(nn.bidirectional(nn.stacked_cell(nn.gru_cell(3))), X[None])
    paths = [line.split()[0] for line in both.split("\n")[3:]]
    assert paths == ["forward", "forward/0", "backward", "backward/0"]
    decoder = nn.autoregressive(nn.serial(nn.embedding(5, 4), nn.dense(5)))
    table = rows(nn.recurrent(nn.stacked_cell(decoder)), jnp.zeros((2, 3), jnp.int32))
    assert list(table) == ["", "0", "0/0", "0/1"]


def test_training_is_another_program():
    model = nn.serial(nn.dense(4), nn.dropout(0.5))
    assert rows(model, X)["1"][4] == 0
    assert rows(model, X, train=True)["1"][4] > 0


def test_keywords_reach_the_layer():
    def forward(f, x, *, memory, double=False):
        return f.dense(jnp.concatenate([x, memory], axis=-1)) * (2 if double else 1)

    model = nn.compose(forward, dense=nn.dense(3))
    table = rows(model, X, keywords={"memory": jnp.zeros((8, 5)), "double": True})
    assert table["dense"][2] == 9 * 3 + 3


def test_several_outputs_and_shapes_alone():
    x = jax.ShapeDtypeStruct((2, 4), jnp.bfloat16)
    text = nn.summary(nn.parallel(a=nn.dense(1), b=nn.dense(2)), x)
    assert "bfloat16[2,1], bfloat16[2,2]" in text


def test_state_and_recorded_calls_do_not_outlive_the_summary(key):
    model = nn.serial(nn.dense(3), nn.batch_norm())
    before = nn.summary(model, X, train=True)
    params, state = model.init(key, X)
    model.apply(params, state, X, train=True)
    assert nn.summary(model, X, train=True) == before


def test_what_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="summary: layer is the constructor dense"):
        nn.summary(nn.dense, X)
