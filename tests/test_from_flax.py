"""What docs/from_flax.md says that one writes in flax nnx, run where flax is installed."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "from_flax.md"


def test_the_blocks_of_nnx_run():
    pytest.importorskip("flax")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    of_flax = [block for block in blocks if not block.startswith(">>>")]
    assert len(of_flax) == 3
    names = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in of_flax:
            exec(block, names)
    assert names["y"].shape == (2, 8)
    assert np.any(names["first"] != names["second"])
    assert {leaf.shape[0] for leaf in jax.tree.leaves(names["grads"])} == {5}
