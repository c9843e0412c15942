"""A fresh interpreter that imports a library and ends."""

from benchmarks.row import Contestant, Row

ROWS = {
    "import": Row(
        title="Import, in a fresh interpreter",
        data=lambda tiny: None,
        contestants={
            "jaxnn": Contestant("importing:jaxnn"),
            "jax alone": Contestant("importing:jax", 1 / 1.1),
            "optax": Contestant("importing:optax"),
            "flax linen": Contestant("importing:linen"),
            "equinox": Contestant("importing:equinox"),
            "torch": Contestant("importing:torch"),
        },
    )
}
