"""The faults that `nn.diagnose` knows: their names, thresholds and cures."""

from typing import NamedTuple

SLOW = "slow learning"
GRADIENTS = "vanishing and exploding gradients"
FIT = "overfitting and underfitting"
POOR = "poor convergence"


class Fault(NamedTuple):
    """A fault: the challenge that it is one of, the limit of what is measured, and the cure.

    `explains` are faults that follow from this one, and are not told beside it.
    """

    name: str
    challenge: str
    limit: float
    cure: str
    explains: tuple[str, ...] = ()


_OF_TRAINING = ("rate_too_large", "rate_too_small", "cannot_overfit", "gradient_noise")
_OF_GRADIENTS = ("vanishing_gradients", "exploding_gradients", "no_gradient")
_OF_UNITS = ("saturated_units", "dead_units")
_OF_SCALE = ("initialisation_shrinks", "initialisation_grows", "output_scale")

# In the order in which they are told: a cause before what follows from it.
_FAULTS = (
    Fault(
        "nonfinite",
        POOR,
        0.0,
        "look for NaN and infinity in the data, then lower the learning rate or clip gradients "
        "with nn.optimizers.clip_by_global_norm; fit(..., on_nonfinite='raise') names the leaf",
        (*_OF_TRAINING, *_OF_GRADIENTS, *_OF_UNITS, *_OF_SCALE),
    ),
    Fault(  # the root mean square of a feature, or its mean in standard deviations
        "unscaled_inputs",
        SLOW,
        10.0,
        "subtract the mean of each feature and divide by its standard deviation, both of the "
        "training set",
        (*_OF_TRAINING, *_OF_GRADIENTS, *_OF_UNITS, *_OF_SCALE),
    ),
    Fault(  # the same of a regression's labels
        "unscaled_labels",
        SLOW,
        10.0,
        "standardise the labels, and scale predictions back",
        (*_OF_TRAINING, "exploding_gradients", "output_scale"),
    ),
    Fault(
        "probabilities_as_logits",
        SLOW,
        0.0,
        "leave out the last softmax or sigmoid: the loss applies it itself",
        (*_OF_TRAINING, *_OF_GRADIENTS, *_OF_UNITS),
    ),
    Fault(  # the factor from the first to the last layer
        "initialisation_shrinks",
        GRADIENTS,
        20.0,
        "initialise kernels by their fan-in: nn.initializers.he_normal() before relu, "
        "lecun_normal() otherwise; or normalise, with nn.layer_norm()",
        (*_OF_TRAINING, "vanishing_gradients", "no_gradient", "dead_units"),
    ),
    Fault(
        "initialisation_grows",
        GRADIENTS,
        20.0,
        "initialise kernels by their fan-in: nn.initializers.he_normal() before relu, "
        "lecun_normal() otherwise; in residual blocks normalise first, with nn.layer_norm()",
        (*_OF_TRAINING, "exploding_gradients", "saturated_units", "output_scale"),
    ),
    Fault(  # the share of units that are 0 for every example
        "dead_units",
        GRADIENTS,
        0.8,
        "begin with biases of 0 and kernels by nn.initializers.he_normal(), lower the learning "
        "rate, or use nn.leaky_relu or nn.gelu",
        (*_OF_TRAINING, *_OF_GRADIENTS),
    ),
    Fault(  # the share of values near an end of the range
        "saturated_units",
        GRADIENTS,
        0.4,
        "initialise kernels by nn.initializers.lecun_normal(), normalise before the activation, "
        "or use nn.relu",
        (*_OF_TRAINING, *_OF_GRADIENTS, "output_scale"),
    ),
    Fault(
        "no_gradient",
        GRADIENTS,
        0.0,
        "look between these parameters and the loss for jax.lax.stop_gradient, rounding, "
        "argmax or a comparison, and for layers whose output is not used",
        (*_OF_TRAINING, "vanishing_gradients"),
    ),
    Fault(  # the factor from the last to the first layer, or step in time
        "vanishing_gradients",
        GRADIENTS,
        300.0,
        "use nn.relu or nn.gelu for sigmoid and tanh, nn.residual connections and nn.layer_norm(); "
        "over time, nn.lstm_cell or nn.gru_cell",
        _OF_TRAINING,
    ),
    Fault(
        "exploding_gradients",
        GRADIENTS,
        300.0,
        "clip with nn.optimizers.clip_by_global_norm, initialise kernels by their fan-in and "
        "recurrent ones by nn.initializers.orthogonal(), normalise with nn.layer_norm()",
        (*_OF_TRAINING, "output_scale"),
    ),
    Fault(  # the loss at the start over that of the best constant
        "output_scale",
        SLOW,
        5.0,
        "begin with small outputs: the last kernel by nn.initializers.zeros or a small normal(), "
        "no large factor on the logits",
        _OF_TRAINING,
    ),
    Fault(  # what is taken off the loss, in shares of what a rate ten times lower or less does
        "rate_too_large",
        POOR,
        0.5,
        "lower the learning rate to the one that the range test found, with a warm-up",
        ("cannot_overfit", "gradient_noise"),
    ),
    Fault(  # the same of a higher rate
        "rate_too_small",
        SLOW,
        0.1,
        "raise the learning rate to the one that the range test found",
        ("cannot_overfit", "gradient_noise"),
    ),
    Fault(  # the loss on one batch that was trained on, over that of the best constant
        "cannot_overfit",
        POOR,
        0.9,
        "what the model computes does not tell the examples apart: look at how inputs and labels "
        "are paired, at constant inputs, at reshapes and averages that mix examples, at dropout",
    ),
    Fault(  # the variance of a batch's gradient over the square of the mean gradient
        "gradient_noise",
        POOR,
        10.0,
        "use larger batches, nn.optimizers.accumulate, a lower rate with a decay, or "
        "nn.optimizers.params_ema",
    ),
    Fault(  # the last validation loss over the lowest
        "overfitting",
        FIT,
        1.1,
        "stop early with nn.early_stopping, add data or augmentation, nn.dropout, weight decay, "
        "or use a smaller model",
    ),
    Fault(  # the share of the loss that is left
        "underfitting",
        FIT,
        0.9,
        "use a larger model or features that tell more, train longer, lessen regularisation",
    ),
    Fault(  # the change from epoch to epoch over the level, in the last third
        "plateau",
        POOR,
        0.05,
        "let the learning rate decay, by a schedule or nn.optimizers.reduce_on_plateau, or use "
        "larger batches",
    ),
)
FAULTS = {fault.name: fault for fault in _FAULTS}
