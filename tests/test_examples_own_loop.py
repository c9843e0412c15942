"""The examples with a loop of their own: a few steps in this process, and the scripts whole."""

import ast
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from tests.compiling import fast_jit
from tests.scripts import EXAMPLES, module_of, printed, run


@pytest.fixture(scope="module")
def gan():
    """The script."""
    return module_of("gan")


@pytest.fixture(scope="module")
def vae():
    """The script, which needs scikit-learn."""
    pytest.importorskip("sklearn")
    return module_of("vae")


@pytest.fixture(scope="module")
def policy_gradient():
    """The script."""
    return module_of("policy_gradient")


@pytest.fixture(scope="module")
def grpo():
    """The script."""
    return module_of("grpo")


def keys(n):
    """So many keys, none of which was used before."""
    return list(jax.random.split(jax.random.key(0), n))


def begun(example, key, optimizer):
    """The start of training as one program."""
    return fast_jit(example.begin, static_argnums=1)(key, optimizer)


def scanned(step, start, xs, length=None):
    """`lax.scan` as one program, quick to compile."""
    return fast_jit(functools.partial(jax.lax.scan, step, length=length))(start, xs)


# Points on a circle


def test_the_quality_of_the_data_is_as_calculated(gan):
    points = gan.draw_data(jax.random.key(0), 20_000)
    modes, near = gan.quality(points)
    assert modes == 8
    np.testing.assert_allclose(near, 1 - np.exp(-4.5), atol=3e-3)  # three standard deviations


def test_the_quality_of_points_that_miss_modes(gan):
    here, between = gan.centers()[:2], jnp.zeros((2, 2))
    assert gan.quality(jnp.concatenate([here, between])) == (2, 0.5)
    rare = jnp.repeat(gan.centers()[:2], np.array([99, 1]), axis=0)  # 1% where 12.5% are due
    assert gan.quality(rare) == (1, pytest.approx(1))


def test_the_penalty_is_on_the_slopes_at_the_data(gan, monkeypatch):
    start_key, data_key = keys(2)
    start = begun(gan, start_key, nn.optimizers.sgd(1.0))
    data = gan.draw_data(data_key, 16)

    def loss_with(penalty):
        monkeypatch.setattr(gan, "PENALTY", penalty)
        batch = data, start.generator.params
        loss_fn = fast_jit(lambda *arguments: gan.discriminator_loss(*arguments)[0])
        return loss_fn(start.discriminator.params, {}, batch, jax.random.key(1))

    difference = loss_with(2.0) - loss_with(0.0)
    h = 1e-3
    judge = fast_jit(functools.partial(gan.judge, start.discriminator.params))
    slopes = [
        (judge(data + axis) - judge(data - axis)) / (2 * h)
        for axis in h * np.eye(2, dtype=np.float32)[:, None]
    ]
    np.testing.assert_allclose(difference, np.mean(np.sum(np.square(slopes), axis=0)), rtol=2e-2)


@pytest.mark.slow
def test_a_few_turns_bring_the_generator_to_the_circle(gan):
    optimizer = nn.optimizers.adam(2e-3, b1=0.5, b2=0.99)
    start_key, turns_key = keys(2)
    start = begun(gan, start_key, optimizer)
    end, losses = scanned(gan.turns(optimizer), start, jax.random.split(turns_key, 300))

    def radii(players):
        points = gan.generate(players.generator.params, jax.random.key(1), 1000)
        return np.linalg.norm(points, axis=-1)

    assert np.median(radii(start)) < 1
    assert 1.5 < np.median(radii(end)) < 2.5
    assert losses["discriminator"][:10].mean() < 2 * np.log(2) + 0.1
    assert end.generator.step == end.discriminator.step == 300


def test_the_picture_of_points(gan):
    places = jnp.array([[0.0, 2.0], [-2.0, 0.0], [0.0, 0.0], [2.0, -2.0]])
    points = jnp.repeat(places, np.array([38, 8, 3, 1]), axis=0)
    assert gan.picture(points, rows=5, columns=5) == "  #\n\n* :\n\n    ."


# Digits


def test_the_images_are_dark_or_light(vae):
    training, validation, test = vae.load(0)
    assert (len(training), len(validation), len(test)) == (1280, 157, 360)
    for images in (training, validation, test):
        assert set(np.unique(images)) == {0, 1}


def test_the_bound_of_an_encoder_and_a_decoder_that_ignore_their_input(vae):
    start_key, one_key, other_key = keys(3)
    start = begun(vae, start_key, nn.optimizers.sgd(1.0))
    params = jax.tree.map(jnp.zeros_like, start.params)
    images = jnp.asarray(vae.load(0)[0][:5])
    elbo = fast_jit(vae.elbo)
    bounds, divergences = elbo(params, images, one_key)
    np.testing.assert_allclose(bounds, -64 * np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(divergences, 0)

    mean, var = 0.5, 4.0
    bias = np.repeat(np.array([mean, np.log(var)], np.float32), vae.LATENT)
    params["encoder"]["dense_1"]["bias"] = jnp.asarray(bias)
    bounds, divergences = elbo(params, images, other_key)
    expected = vae.LATENT * (mean**2 + var - 1 - np.log(var)) / 2
    np.testing.assert_allclose(divergences, expected, rtol=1e-6)
    np.testing.assert_allclose(bounds, -64 * np.log(2) - expected, rtol=1e-6)


def test_the_place_is_drawn_from_the_gaussian_of_the_encoder(vae):
    start = begun(vae, jax.random.key(0), nn.optimizers.sgd(1.0))
    images = jnp.asarray(vae.load(0)[0][:5])
    elbo = fast_jit(vae.elbo)
    one, same, other = (elbo(start.params, images, jax.random.key(n))[0] for n in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.all(one != other)


@pytest.mark.slow
def test_a_few_epochs_raise_the_bound_over_the_baseline(vae):
    training, validation, _ = vae.load(0)
    optimizer = nn.optimizers.adam(1e-3)
    epoch = vae.epochs_of(optimizer, training, validation)
    start_key, epochs_key = keys(2)
    _, history = scanned(epoch, begun(vae, start_key, optimizer), jax.random.split(epochs_key, 12))
    assert np.all(np.diff(history["elbo"][:3]) > 0)
    assert history["val_elbo"][0] < vae.baseline(training, validation) < history["val_elbo"][-1]


def test_the_baseline_knows_how_dark_each_pixel_is(vae):
    images = np.zeros((1000, 64), np.float32)
    images[:500, :2] = 1
    np.testing.assert_allclose(vae.baseline(images, images), 2 * np.log(0.5), rtol=0.06)


def test_the_picture_of_images(vae):
    images = np.zeros((2, 64))
    images[0, 0], images[1, 63] = 1, 0.5
    rows = vae.picture(images).split("\n")
    assert rows[0] == "##"
    assert rows[-1] == " " * (16 + 2 + 14) + "::"
    assert rows[1:-1] == [""] * 6


@pytest.mark.slow
@pytest.mark.usefixtures("vae")
def test_the_autoencoder_names_the_extra_that_it_needs():
    done = run("vae", blocked=["sklearn.datasets"])
    assert done.returncode == 1
    assert "pip install scikit-learn" in done.stderr
    assert "Traceback" not in done.stderr


# A pole on a cart


def test_the_motion_is_that_of_a_rod_on_a_cart(policy_gradient):
    """It solves the two equations of the Lagrangian, of a rod with inertia 4/3 m l^2 at its end."""
    P = policy_gradient
    now = np.array([0.3, -0.7, 0.8, 1.1])
    for right, force in ((True, 10.0), (False, -10.0)):
        moved = np.asarray(P.move(jnp.asarray(now, jnp.float32), right)) - now
        x_dot, x_up, angle_dot, angle_up = moved / 0.02
        np.testing.assert_allclose([x_dot, angle_dot], now[[1, 3]], rtol=1e-4)
        sin, cos = np.sin(now[2]), np.cos(now[2])
        of_cart = 1.1 * x_up + 0.1 * 0.5 * (angle_up * cos - now[3] ** 2 * sin)
        np.testing.assert_allclose(of_cart, force, rtol=1e-4)
        of_pole = 4 / 3 * 0.5 * angle_up + x_up * cos
        np.testing.assert_allclose(of_pole, 9.8 * sin, rtol=1e-4)


def test_an_episode_ends_where_the_pole_leans_or_the_track_ends(policy_gradient):
    states = [[2.39, 9, 0.2, 9], [-2.41, 0, 0, 0], [0, 0, 0.22, 0], [0, 0, -0.2, 0]]
    stands = jax.vmap(policy_gradient.stands)(jnp.array(states))
    np.testing.assert_array_equal(stands, [True, False, False, True])


def test_episodes_of_simple_policies(policy_gradient):
    def length(policy):
        episodes = fast_jit(lambda key: policy_gradient.play(policy, key, 200))(jax.random.key(0))
        assert episodes.seen.shape == (500, 200, 4)
        going = np.asarray(episodes.going)
        assert np.all(going[1:] <= going[:-1])  # what has fallen stays so
        np.testing.assert_allclose(episodes.length, going.sum() / 200, rtol=1e-6)
        return float(episodes.length)

    assert 8 < length(lambda seen, key: jnp.ones(200, bool)) < 11
    assert 19 < length(lambda seen, key: jax.random.bernoulli(key, shape=(200,))) < 26
    assert 38 < length(lambda seen, key: seen[:, 2] > 0) < 46


def test_returns_are_discounted_sums(policy_gradient):
    rng = np.random.default_rng(0)
    going = np.arange(7)[:, None] < rng.integers(1, 8, 4)
    got = policy_gradient.returns(jnp.asarray(going))
    for start in range(7):
        weights = 0.01 * 0.99 ** np.arange(7 - start)
        np.testing.assert_allclose(got[start], weights @ going[start:], rtol=1e-5)


@pytest.mark.slow
def test_a_few_steps_make_the_episodes_longer(policy_gradient):
    optimizer = nn.optimizers.adam(1e-2)
    step = nn.train_step(policy_gradient.loss_fn, optimizer)
    _, metrics = scanned(
        step, begun(policy_gradient, jax.random.key(0), optimizer), None, length=40
    )
    lengths = metrics["length"]
    assert lengths[:3].mean() < 40
    assert lengths[-3:].mean() > 2 * lengths[:3].mean()


@pytest.mark.slow
def test_what_was_sampled_has_the_probabilities_of_the_loss(grpo):
    """The first gradient is that of the policy: the mean of advantage times log-probability."""
    model = grpo.model()
    params, _ = fast_jit(model.init)(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    batch, reward = fast_jit(grpo.sampled)(params, jax.random.key(1))
    tokens, log_probs, advantage = batch
    prompts, written = np.split(np.asarray(tokens), 2, axis=1)
    np.testing.assert_array_equal(prompts.reshape(32, 16, 3), prompts[::16, None].repeat(16, 1))
    rewards = (written == prompts[:, ::-1]).mean(1).reshape(32, 16)
    np.testing.assert_allclose(reward, rewards.mean(), rtol=1e-6)
    spread = np.sqrt(rewards.var(1, keepdims=True) + 1e-5)
    expected = (rewards - rewards.mean(1, keepdims=True)) / spread
    np.testing.assert_allclose(advantage, expected.reshape(-1, 1), rtol=1e-4, atol=1e-4)

    @fast_jit
    def both(params):
        def policy(params):
            logits, _ = model.apply(params, {}, tokens[:, :-1])
            chosen = nn.functional.token_log_probs(logits, tokens[:, 1:])[:, 2:]
            return -jnp.mean(advantage * chosen), chosen

        expected, chosen = jax.grad(policy, has_aux=True)(params)
        return expected, jax.grad(lambda p: grpo.loss_fn(p, {}, batch, None)[0])(params), chosen

    expected, got, chosen = both(params)
    np.testing.assert_allclose(chosen, log_probs, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, 1e-3, 1e-5), got, expected)


@pytest.mark.slow
def test_reward_alone_teaches_to_reverse(grpo, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["grpo", "--batches", "100"])
    grpo.main()
    assert number(r"^Batch 100: mean reward (\S+)$", capsys.readouterr().out) > 0.4  # chance: 0.17


# What they are written with


@pytest.mark.parametrize("name", ["gan", "vae", "policy_gradient", "grpo"])
def test_only_public_names_are_used(name):
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    ours = [ast.unparse(node) for node in imports if "jaxnn" in ast.unparse(node)]
    assert ours == ["import jaxnn as nn"]

    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert not [node.attr for node in attributes if node.attr.startswith("_")]
    used = [ast.unparse(node) for node in attributes]
    used = [names.split(".")[1:] for names in used if re.fullmatch(r"nn(\.\w+)+", names)]
    assert ["train_step"] in used
    for names in used:
        module = nn
        for i, part in enumerate(names):
            assert part in module.__all__, f"nn.{'.'.join(names)}"
            if i < len(names) - 1:
                module = getattr(module, part)


# The scripts whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("gan", ["--steps", "10"], "Of data: 8 of 8 modes"),
        ("vae", ["--epochs", "1"], "Test ELBO"),
        ("policy_gradient", ["--steps", "1"], "Solved, that is at least 475: no"),
    ],
)
def test_the_scripts_run_for_a_moment(name, arguments, last, monkeypatch, capsys, request):
    """In this process, so under the suite's strict settings."""
    monkeypatch.setattr("sys.argv", [name, *arguments])
    request.getfixturevalue(name).main()
    assert last in capsys.readouterr().out.splitlines()[-1]


def number(pattern, text):
    """The number that a line has where the pattern has its group."""
    return float(re.search(pattern, text, re.MULTILINE)[1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_gan_finds_all_modes(seed):
    text = printed("gan", "--seed", seed)
    assert "Of a Gaussian: 0 of 8 modes" in text
    assert "Of the generator: 8 of 8 modes" in text
    assert number(r"^Of the generator: .* ([\d.]+)% of the points", text) > 85


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.usefixtures("vae")
def test_the_autoencoder_is_better_than_independent_pixels(seed):
    text = printed("vae", "--seed", seed)
    baseline = number(r"^Test log-likelihood of independent pixels: (\S+) nats$", text)
    assert baseline < -24
    assert number(r"^Test ELBO: (\S+) nats$", text) > baseline + 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_policy_gradient_solves_the_task(seed):
    text = printed("policy_gradient", "--seed", seed)
    assert number(r"episodes of random pushes: (\S+)$", text) < 30
    assert number(r"episodes of the network: (\S+)$", text) >= 475
    assert "475: yes" in text
