"""Layers made of layers. Where a layer is expected, a plain function of arrays is lifted to one."""

from jaxnn.combinators.chains import parallel, residual, serial
from jaxnn.combinators.composition import compose
from jaxnn.combinators.copies import ensemble, stack
from jaxnn.combinators.reparametrization import spectral_norm, weight_norm
from jaxnn.combinators.wrappers import mixed_precision, remat

__all__ = [
    "compose",
    "ensemble",
    "mixed_precision",
    "parallel",
    "remat",
    "residual",
    "serial",
    "spectral_norm",
    "stack",
    "weight_norm",
]
