"""The examples for each kind of data: their parts in this process, and the scripts whole."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiling import fast_jit
from tests.scripts import data_file, module_of, printed


def example(name, *needs):
    """A fixture: the script as a module."""

    @pytest.fixture(scope="module")
    def script():
        for package in needs:
            pytest.importorskip(package)
        return module_of(name)

    return script


burgers = example("burgers")
diffusion = example("diffusion", "sklearn")
graph_network = example("graph_network", "sklearn")
housing = example("housing")
sunspots = example("sunspots", "statsmodels")
text_classifier = example("text_classifier")
translation = example("translation")


def numbers(pattern, text):
    """The numbers that lines have where the pattern has its groups."""
    return [float(number.replace(",", "")) for number in re.findall(pattern, text, re.MULTILINE)]


# Their parts


def test_a_table_becomes_numbers_and_categories(housing, tmp_path):
    path = tmp_path / "housing.csv"
    rng = np.random.default_rng(0)
    names = "longitude latitude housing_median_age total_rooms total_bedrooms population households"
    header = [*names.split(), "median_income", "median_house_value", "ocean_proximity"]
    rows = [[*map(str, rng.uniform(1, 9, 9)), "INLAND" if i % 2 else "ISLAND"] for i in range(8)]
    rows[3][4] = ""
    path.write_text("\n".join(",".join(row) for row in [header, *rows]))
    x, price = housing.load(path)
    np.testing.assert_allclose(price, [float(row[8]) for row in rows])
    assert x["numbers"].shape == (8, 12)
    np.testing.assert_allclose(x["numbers"].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x["numbers"].std(axis=0), 1, rtol=1e-5)
    assert np.argmax(x["numbers"][:, -1]) == 3  # it was missing
    np.testing.assert_array_equal(x["categories"][:, 0], [1, 0] * 4)
    assert x["categories"][:, 1].min() >= 0
    assert x["categories"][:, 1].max() < housing.CELLS**2


def test_speeches_have_the_play_of_their_speaker(text_classifier, tmp_path):
    path = tmp_path / "plays.txt"
    said = "one two three four five\nsix, seven eight nine ten!\n"
    path.write_text(f"ROMEO:\n{said}\nFirst Citizen:\n{said}\nJULIET:\nAy me!\n\nLEONTES:\n{said}")
    words, plays = text_classifier.load(path)
    assert words == [[*said.lower().replace(",", "").replace("!", " !").split()]] * 2
    names = list(text_classifier.PLAYS)
    assert [names[play] for play in plays] == ["Romeo and Juliet", "The Winter's Tale"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (14, "fourteen"),
        (90, "ninety"),
        (305, "three hundred and five"),
        (600_021, "six hundred thousand and twenty one"),
        (999_999, "nine hundred and ninety nine thousand nine hundred and ninety nine"),
    ],
)
def test_numbers_in_words(translation, number, words):
    assert " ".join(translation.in_words(number)) == words


def test_each_digit_is_asked_for_after_those_before_it(translation):
    x, digits = translation.pairs(np.array([307, 999_999]))
    np.testing.assert_array_equal(digits, [[3, 0, 7, *[10] * 4], [*[9] * 6, 10]])
    np.testing.assert_array_equal(x["digits"], [[10, 3, 0, 7, 10, 10, 10], [10, *[9] * 6]])
    np.testing.assert_array_equal(x["mask"].sum(axis=1), [4, 11])


def test_the_residual_of_the_start_alone(burgers):
    """Without a network `u = -sin(pi x)`: `u_t = 0`, and the other terms are known."""
    params, _ = fast_jit(burgers.NETWORK.init)(jax.random.key(0), jnp.zeros((1, 2)))
    params = jax.tree.map(jnp.zeros_like, params)
    t, x = np.random.default_rng(0).uniform(-1, 1, (2, 9)).astype(np.float32)
    sin, cos = np.sin(np.pi * x), np.cos(np.pi * x)
    expected = np.pi * sin * cos - burgers.VISCOSITY * np.pi**2 * sin
    got = fast_jit(burgers.residual)(params, t, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_exact_solution_solves_the_equation(burgers):
    h, x = 1e-3, np.linspace(-0.9, 0.9, 7)
    u, left, right = (burgers.exact(0.5, x + d) for d in (0, -h, h))
    u_t = (burgers.exact(0.5 + h, x) - burgers.exact(0.5 - h, x)) / (2 * h)
    u_xx = (right - 2 * u + left) / h**2
    np.testing.assert_allclose(
        u_t + u * (right - left) / (2 * h), burgers.VISCOSITY * u_xx, atol=1e-3
    )
    np.testing.assert_allclose(burgers.exact(1e-6, x), -np.sin(np.pi * x), atol=1e-4)


def test_a_graph_convolution_is_that_of_the_paper(graph_network):
    senders, receivers = np.array([0, 1, 1, 2]), np.array([1, 0, 2, 1])
    nodes = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    layer = graph_network.graph_convolution(2)
    edges = {"senders": senders, "receivers": receivers}
    params, state = fast_jit(layer.init)(jax.random.key(0), nodes, **edges)
    kernel = params["dense"]["kernel"]
    adjacency = np.eye(3)
    adjacency[receivers, senders] = 1
    scale = np.diag(adjacency.sum(axis=1) ** -0.5)
    expected = scale @ adjacency @ scale @ nodes @ kernel
    np.testing.assert_allclose(
        fast_jit(layer.apply)(params, state, nodes, **edges)[0], expected, rtol=1e-4, atol=1e-5
    )


def test_windows_of_a_series_and_the_error_of_a_forecast(sunspots):
    series = np.arange(20, dtype=np.float32)
    x, y = sunspots.windows(series, 15, 18)
    np.testing.assert_array_equal(y[:, 0], [15, 16, 17])
    np.testing.assert_array_equal(x[0], np.arange(3, 15))
    exact = sunspots.errors(lambda x: x[:, -1] + 1, series, 13, 20, 4)
    np.testing.assert_allclose(exact, 0, atol=1e-6)
    late = sunspots.errors(lambda x: x[:, -1], series, 19, 20, 1)
    np.testing.assert_allclose(late, (19**2 - 18**2) ** 2 / np.var(series**2), rtol=1e-5)


# The scripts whole


@pytest.mark.slow
def test_the_network_knows_prices_better_than_a_line():
    text = printed("housing", data_file("housing.csv"))
    line, network = numbers(r"^Test error .*\$([\d,]+)", text)
    assert network < 50_000 < line - 10_000


@pytest.mark.slow
@pytest.mark.usefixtures("sunspots")
def test_networks_see_further_than_a_linear_autoregression():
    text = printed("sunspots")
    of = {
        name: numbers(r"([\d.]+)", rest) for name, rest in re.findall(r"^(.*): +(0.*)$", text, re.M)
    }
    linear, networks = of["linear autoregression"], of["networks"]
    assert networks[0] < 0.1  # the paper: 0.086
    assert networks[2] < 0.95 * linear[2]
    assert networks[3] < 0.9 * linear[3]


@pytest.mark.slow
def test_plays_are_told_from_each_other():
    text = printed("text_classifier", data_file("tinyshakespeare.txt"))
    (frequent,) = numbers(r"most frequent play: (.*)%$", text)
    (network,) = numbers(r"^Test accuracy: (.*)%$", text)
    assert network > 50 > 2 * frequent


@pytest.mark.slow
def test_numbers_that_were_never_seen_are_translated():
    (right,) = numbers(r"^Test accuracy .*: (.*)%$", printed("translation"))
    assert right > 97


@pytest.mark.slow
@pytest.mark.usefixtures("diffusion")
def test_digits_are_drawn_on_demand():
    text = printed("diffusion")
    (right,) = numbers(r"^Drawn digits .*: (.*)%$", text)
    drawn, of_data = numbers(r"([\d.]+)(?=,|$)", re.search(r"^Spread.*$", text, re.M)[0])
    assert right > 95
    assert 0.6 * of_data < drawn < 1.4 * of_data


@pytest.mark.slow
def test_the_equation_of_burgers_is_solved():
    (error,) = numbers(r"^Relative error: (.*)$", printed("burgers"))
    assert error < 5e-3


@pytest.mark.slow
@pytest.mark.usefixtures("graph_network")
def test_edges_name_digits():
    without, with_edges = numbers(r"^Accuracy .*: (.*)%$", printed("graph_network"))
    assert with_edges > max(without + 5, 80)
