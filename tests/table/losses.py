"""Losses."""

from functools import partial

import numpy as np

import jaxnn as nn
from tests import composed_reference as composed
from tests.numpy_reference import ctc, losses, losses_further
from tests.table.rows import FunctionRow

IMAGES = ((2, 3, 4), (2, 2, 3, 3), (2, 4, 1))


def regression(rng, shape):
    """Predictions and targets whose errors are off the kinks, which are at integers and halves."""
    targets = rng.standard_normal(shape)
    return targets + rng.integers(-6, 6, shape) / 2 + rng.uniform(0.05, 0.45, shape), targets


def with_variances(rng, shape):
    """The same and positive variances."""
    return *regression(rng, shape), rng.uniform(0.3, 2.0, shape)


def rates(rng, shape):
    """Positive rates, or logarithms of them, and counts that need not be whole."""
    return rng.uniform(0.2, 3.0, shape), rng.uniform(0.0, 5.0, shape)


def soft_labels(rng, shape):
    """Logits and probabilities."""
    return 3 * rng.standard_normal(shape), rng.random(shape)


def with_nothing_near_0(rng, shape):
    """The same of both signs and sizes off 0 and 1, and half the targets larger than 1."""
    predictions, targets = (
        rng.choice([-1.0, 1.0], shape) * rng.uniform(0.2, 0.9, shape) for _ in range(2)
    )
    return predictions + np.sign(predictions), targets + np.sign(targets) * (targets > 0)


def signs(rng, shape):
    """Outputs off the kinks, which are at -1, 0 and 1, and targets near -1 and 1."""
    outputs = rng.integers(-3, 3, shape) + rng.uniform(0.2, 0.8, shape)
    return outputs, np.where(rng.random(shape) < 0.5, -1.0, 1.0) * rng.uniform(0.9, 1.1, shape)


def distributions(axis):
    """Logits and distributions over `axis`."""

    def draw(rng, shape):
        p = rng.uniform(0.1, 1.0, shape)
        return 3 * rng.standard_normal(shape), p / p.sum(axis, keepdims=True)

    return draw


def mean_of_others(logits, labels):
    """The mean cross-entropy over the labels that are not 0."""
    values, weights = nn.losses.ignoring(nn.losses.softmax_cross_entropy, 0)(logits, labels)
    return (values * weights).sum() / weights.sum().clip(1)


def mean_of_others_reference(logits, labels):
    """The same: what has the label 0 has no part in the sum, the number or the gradient."""
    others = labels != 0
    count = max(others.sum(), 1)
    values, backward = losses.softmax_cross_entropy(logits, labels)
    mean = np.where(others, values, 0.0).sum() / count
    return mean, lambda dy: backward(np.where(others, dy / count, 0.0))


def classes(axis):
    """Logits and integer labels, the classes in `axis`."""

    def draw(rng, shape):
        labels = rng.integers(0, shape[axis], np.delete(shape, axis))
        return 3 * rng.standard_normal(shape), np.asarray(labels)

    return draw


def log_distributions(rng, shape):
    """Log-probabilities and logarithms of distributions."""
    logits, p = distributions(-1)(rng, shape)
    return logits, np.log(p)


def vectors(count):
    """Normal arrays."""
    return lambda rng, shape: tuple(rng.standard_normal(shape) for _ in range(count))


def clusters(rng, shape):
    """Embeddings and labels of which some are equal."""
    return rng.standard_normal(shape), np.arange(shape[0]) % 3


def regions(rng, shape):
    """Logits and soft one-hot pixels."""
    return distributions(-1)(rng, shape)


def speech(rng, shape):
    """Logits, paddings, labels with repeats among three classes, paddings: 0 is the blank."""
    batch, frames, _ = shape
    lengths, label_lengths = np.array([frames, frames - 1, frames]), np.array([2, 1, 0])
    labels = rng.integers(1, 3, (batch, 2))
    labels[0] = 2
    return (
        2 * rng.standard_normal(shape),
        (np.arange(frames) >= lengths[:batch, None]).astype(int),
        labels,
        (np.arange(2) >= label_lengths[:batch, None]).astype(int),
    )


def with_mask(draw):
    """The same with a mask of the shape of the first argument."""
    return lambda rng, shape: (*draw(rng, shape), rng.random(shape) < 0.6)


def with_example_mask(draw):
    """The same with a mask of the shape of the last argument."""

    def drawn(rng, shape):
        arguments = draw(rng, shape)
        return *arguments, np.arange(arguments[-1].size).reshape(arguments[-1].shape) % 3 != 1

    return drawn


def with_vector_mask(draw):
    """The same with a mask of the shape of the first argument without its last axis."""
    return lambda rng, shape: (*draw(rng, shape), np.arange(shape[0]) % 3 != 1)


def with_class_weights(draw):
    """The same with a weight for each class."""
    return lambda rng, shape: (*draw(rng, shape), rng.uniform(0.2, 2.0, shape[-1:]))


def mask_last(loss):
    """The loss with its `where=` as last argument."""
    return lambda *arguments, **options: loss(*arguments[:-1], where=arguments[-1], **options)


def weights_last(loss):
    """The loss with its `class_weights=` as last argument."""
    return lambda *arguments, **options: loss(
        *arguments[:-1], class_weights=arguments[-1], **options
    )


def weighted(logits, labels, weights, label_smoothing=0.0):
    """Cross-entropy of the smoothed labels, each multiplied by the weight of its class."""
    integer = labels.dtype.kind in "iu"
    one_hot = np.eye(logits.shape[-1])[labels] if integer else labels
    targets, through_smoothing = losses.smooth_labels(one_hot, label_smoothing)
    y, through_entropy = losses.softmax_cross_entropy(logits, targets * weights)

    def backward(dy):
        dlogits, dproduct = through_entropy(dy)
        dweights = (dproduct * targets).reshape(-1, len(weights)).sum(0)
        (dlabels,) = through_smoothing(dproduct * weights)
        return dlogits, None if integer else dlabels, dweights

    return y, backward


def ignoring(reference, index):
    """A loss of integer labels, of which those that are `index` have loss 0."""

    def masked(scores, labels):
        y, backward = reference(scores, labels)
        keep = labels != index
        return np.where(keep, y, 0), lambda dy: backward(np.where(keep, dy, 0))

    return masked


def pixel_mask(predictions, targets, where, reference=losses.dice_loss):
    """A loss of regions of each example over the pixels that count."""
    pixels = where[..., 0]
    y, backwards = np.zeros(len(targets)), []
    for b in range(len(targets)):
        one = reference(predictions[b][None, pixels[b]], targets[b][None, pixels[b]])
        y[b] = one[0][0]
        backwards.append(one[1])

    def backward(dy):
        gradients = np.zeros(predictions.shape), np.zeros(targets.shape)
        for b, pull in enumerate(backwards):
            for gradient, of_pixels in zip(gradients, pull(dy[b : b + 1]), strict=True):
                gradient[b][pixels[b]] = of_pixels[0]
        return *gradients, None

    return y, backward


def row(name, draw, reference=None, function=None, module=losses, **fields):
    """A row whose function and reference have the same name."""
    return FunctionRow(
        f"losses.{name}",
        function or getattr(nn.losses, name),
        reference or getattr(module, name),
        draw,
        **fields,
    )


def paired_signs(rng, shape):
    """Two scores, off the kinks that their difference has at -1, 0 and 1, and targets near ±1."""
    outputs, targets = signs(rng, shape)
    second = rng.standard_normal(shape)
    return outputs + second, second, targets


def pairs_of_vectors(rng, shape):
    """Vectors, and which belong together."""
    return *vectors(2)(rng, shape), np.where(rng.random(shape[:-1]) < 0.5, -1, 1)


def views(rng, shape):
    """Embeddings of two views, and labels of which some are equal."""
    return *vectors(2)(rng, shape), np.arange(shape[0]) % 3


def relevances(rng, shape):
    """Scores and relevances of items that need not be whole."""
    return 3 * rng.standard_normal(shape), rng.uniform(0.0, 3.0, shape)


def elementwise_rows():
    """A row for each loss of elements and each of its variants, and one with a mask."""
    table = {
        "squared_error": (regression, ({},)),
        "l2_loss": (regression, ({},)),
        "absolute_error": (regression, ({},)),
        "huber_loss": (regression, ({}, {"delta": 0.5})),
        "log_cosh": (regression, ({},)),
        "quantile_loss": (regression, ({"quantile": 0.3}, {"quantile": 1.0})),
        "gaussian_nll": (with_variances, ({}, {"full": True, "epsilon": 1.0})),
        "poisson_nll": (
            rates,
            ({}, {"full": True}, {"log_input": False, "epsilon": 0.1}),
        ),
        "sigmoid_binary_cross_entropy": (soft_labels, ({},)),
        "sigmoid_focal_loss": (soft_labels, ({}, {"alpha": 0.3, "gamma": 1.5})),
        "hinge_loss": (signs, ({},)),
        "perceptron_loss": (signs, ({},)),
    }
    further = {
        "absolute_percentage_error": (with_nothing_near_0, ({}, {"epsilon": 1.0})),
        "squared_logarithmic_error": (with_nothing_near_0, ({},)),
        "gaussian_kl_divergence": (vectors(2), ({},)),
        "squared_hinge_loss": (signs, ({},)),
        "margin_ranking_loss": (paired_signs, ({}, {"margin": 1.0})),
        "dpo_loss": (vectors(4), ({}, {"beta": 0.5, "label_smoothing": 0.2})),
    }
    modules = dict.fromkeys(table, losses) | dict.fromkeys(further, losses_further)
    for name, (draw, variants) in (table | further).items():
        module = modules[name]
        for options in variants:
            shapes = ((6,), (2, 3, 4)) if options is variants[0] else ((4, 3),)
            yield row(name, draw, options=options, shapes=shapes, module=module)
        yield row(
            name,
            with_mask(draw),
            composed.result_mask(getattr(module, name)),
            mask_last(getattr(nn.losses, name)),
            options=variants[0],
            variant="where",
            shapes=((4, 3),),
        )


def cross_entropy_rows():
    """Rows for the losses of distributions or integer labels."""
    name = "softmax_cross_entropy"
    loss, reference = nn.losses.softmax_cross_entropy, losses.softmax_cross_entropy
    for variant, labels in (("distributions", distributions), ("integers", classes)):
        for smoothing in ({}, {"label_smoothing": 0.2}):
            for axis in (-1, 0):
                options = {"axis": axis, **smoothing}
                yield row(name, labels(axis), options=options, variant=variant)
            yield row(
                name,
                with_mask(labels(-1)),
                composed.class_mask(reference),
                mask_last(loss),
                options=smoothing,
                variant=f"{variant}_where",
            )
        yield row(
            name,
            with_class_weights(labels(-1)),
            weighted,
            weights_last(loss),
            options={"label_smoothing": 0.2},
            variant=f"{variant}_weights",
            shapes=((2, 3, 4),),
        )
        for other in ("poly_loss_cross_entropy", "nll"):
            yield row(other, labels(-1), variant=variant, shapes=((5,), (2, 3, 4)))
            yield row(
                other,
                with_mask(labels(-1)),
                composed.class_mask(getattr(losses, other)),
                mask_last(getattr(nn.losses, other)),
                variant=f"{variant}_where",
                shapes=((4, 5),),
            )
    for other in (name, "nll"):
        yield row(
            other,
            classes(-1),
            ignoring(getattr(losses, other), 1),
            partial(getattr(nn.losses, other), ignore_index=1),
            variant="ignore_index",
            shapes=((6, 3),),
        )
    options = {"axis": 1, "epsilon": -0.5}
    yield row("poly_loss_cross_entropy", distributions(1), options=options, shapes=((2, 3, 4),))
    integer = "softmax_cross_entropy_with_integer_labels"
    yield row(integer, classes(-1))
    yield row(
        integer,
        with_mask(classes(-1)),
        composed.class_mask(reference),
        mask_last(getattr(nn.losses, integer)),
        variant="where",
        shapes=((4, 5),),
    )
    for shape, axis in (((5,), -1), ((2, 3, 4), 1)):
        yield row(
            "smooth_labels",
            lambda rng, shape, axis=axis: distributions(axis)(rng, shape)[1:],
            options={"alpha": 0.2, "axis": axis},
            shapes=(shape,),
        )


def other_rows():
    """Rows for the losses of examples, vectors, regions and sequences."""
    for name in ("multiclass_hinge_loss", "multiclass_perceptron_loss"):
        yield row(name, classes(-1))
        yield row(
            name,
            with_example_mask(classes(-1)),
            composed.result_mask(getattr(losses, name)),
            mask_last(getattr(nn.losses, name)),
            variant="where",
            shapes=((4, 5),),
        )
    for name, draw in (
        ("kl_divergence", distributions(-1)),
        ("kl_divergence_with_log_targets", log_distributions),
        ("generalized_kl_divergence", distributions(-1)),
        ("cosine_similarity", vectors(2)),
        ("cosine_distance", vectors(2)),
    ):
        yield row(name, draw, shapes=((5,), (2, 3, 4)))
        yield row(name, draw, options={"axis": 0}, shapes=((3, 4),))
        masked = mask_last(getattr(nn.losses, name))
        yield row(name, with_mask(draw), None, masked, variant="where", shapes=((4, 5),))
    yield row("cosine_similarity", vectors(2), options={"epsilon": 4.0}, shapes=((6, 4),))

    name = "triplet_margin_loss"
    for options, shapes in (
        ({}, ((5,), (6, 4))),
        ({"axis": 0, "norm_degree": 3.0, "margin": 0.5}, ((4, 6),)),
        ({"norm_degree": 1.0, "eps": 0.0}, ((6, 4),)),
    ):
        yield row(name, vectors(3), options=options, shapes=shapes)
    yield row(
        name,
        with_vector_mask(vectors(3)),
        composed.result_mask(losses.triplet_margin_loss),
        mask_last(nn.losses.triplet_margin_loss),
        variant="where",
        shapes=((6, 4),),
    )
    yield row("ntxent", clusters, shapes=((2, 3), (7, 3)), options={"temperature": 0.5})
    masked = mask_last(nn.losses.ntxent)
    draw = with_vector_mask(clusters)
    yield row("ntxent", draw, None, masked, variant="where", shapes=((8, 3),))

    yield row("dice_loss", regions, shapes=IMAGES)
    for options in (
        {"smooth": 0.1, "alpha": 0.3, "beta": 0.9, "reduction": "sum"},
        {"reduction": "none", "ignore_background": True},
        {"apply_softmax": False, "ignore_background": True},
    ):
        yield row("dice_loss", regions, options=options, shapes=IMAGES[:1])
    yield row(
        "dice_loss",
        lambda rng, shape: (*regions(rng, shape), rng.random((*shape[:-1], 1)) < 0.6),
        pixel_mask,
        mask_last(nn.losses.dice_loss),
        variant="where",
        shapes=((2, 5, 3),),
    )
    yield from further_rows()
    yield row("ctc_loss", speech, module=ctc, shapes=((3, 5, 3), (1, 3, 4)))
    yield row("ctc_loss", speech, module=ctc, options={"blank_id": 3}, shapes=((2, 4, 4),))


def further_rows():
    """Rows for pairs, views, rankings and generalized regions."""
    reference = losses_further
    yield row(
        "gaussian_kl_divergence", vectors(4), module=reference, variant="prior", shapes=((4, 3),)
    )
    name = "cosine_embedding_loss"
    for options in ({}, {"margin": 0.3}):
        yield row(name, pairs_of_vectors, module=reference, options=options, shapes=((6, 4),))
    yield row(
        name,
        with_example_mask(pairs_of_vectors),
        composed.result_mask(reference.cosine_embedding_loss),
        mask_last(nn.losses.cosine_embedding_loss),
        variant="where",
        shapes=((6, 4),),
    )
    yield row("clip_loss", vectors(2), module=reference, variant="alone", shapes=((4, 3),))
    yield row("clip_loss", views, module=reference, options={"temperature": 0.5}, shapes=((5, 3),))
    yield row(
        "clip_loss",
        with_vector_mask(views),
        reference.clip_loss,
        mask_last(nn.losses.clip_loss),
        variant="where",
        shapes=((8, 3),),
    )
    yield row("safe_softmax_cross_entropy", distributions(-1), module=reference)
    yield row("ranking_softmax_loss", relevances, module=reference)
    yield row(
        "ranking_softmax_loss",
        lambda rng, shape: (*relevances(rng, shape), rng.uniform(0.2, 2.0, shape)),
        reference.ranking_softmax_loss,
        lambda logits, labels, weights: nn.losses.ranking_softmax_loss(
            logits, labels, weights=weights
        ),
        variant="weights",
        shapes=((4, 5),),
    )
    for name, draw in (
        ("ranking_softmax_loss", relevances),
        ("safe_softmax_cross_entropy", distributions(-1)),
    ):
        yield row(
            name,
            with_mask(draw),
            composed.class_mask(getattr(reference, name)),
            mask_last(getattr(nn.losses, name)),
            variant="where",
            shapes=((4, 5),),
        )
    name = "generalized_dice_loss"
    yield row(name, regions, module=reference, shapes=IMAGES[:2])
    options = {"apply_softmax": False, "ignore_background": True}
    yield row(name, regions, module=reference, options=options, shapes=((2, 9, 3),))
    yield row(
        name,
        lambda rng, shape: (*regions(rng, shape), rng.random((*shape[:-1], 1)) < 0.6),
        partial(pixel_mask, reference=reference.generalized_dice_loss),
        mask_last(nn.losses.generalized_dice_loss),
        variant="where",
        shapes=((2, 9, 3),),
    )


def heads(rng, shape):
    """Rows, the kernel of 5 classes, labels, some of which are 1, and a bias."""
    labels = rng.integers(0, 5, shape[:-1])
    kernel, bias = rng.standard_normal((shape[-1], 5)), rng.standard_normal(5)
    return rng.standard_normal(shape), kernel, np.asarray(labels), bias


def linear_rows():
    """The loss of a linear layer."""
    for options in ({}, {"label_smoothing": 0.2, "ignore_index": 1, "soft_cap": 1.5}):
        yield FunctionRow(
            "losses.linear_softmax_cross_entropy",
            nn.losses.linear_softmax_cross_entropy,
            losses_further.linear_softmax_cross_entropy,
            heads,
            ((3,), (2, 4, 3)),
            options,
        )


LAYERS = ()
FUNCTIONS = (
    FunctionRow(
        "losses.ignoring",
        mean_of_others,
        mean_of_others_reference,
        classes(-1),
        ((5, 4), (2, 3, 4)),
    ),
    *elementwise_rows(),
    *cross_entropy_rows(),
    *linear_rows(),
    *other_rows(),
)
