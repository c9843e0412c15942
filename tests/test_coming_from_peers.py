"""What docs/from_*.md says that one writes in other libraries, run where they are installed."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"


def blocks_of_the_peer(page):
    """The blocks of code that are not doctests."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [block for block in blocks if not block.startswith(">>>")]


def run(blocks):
    """The names that the blocks define."""
    names = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(block, names)
    return names


def test_the_blocks_of_nnx_run():
    pytest.importorskip("flax")
    blocks = blocks_of_the_peer("from_flax.md")
    assert len(blocks) == 3
    names = run(blocks)
    assert names["y"].shape == (2, 8)
    assert np.any(names["first"] != names["second"])
    assert {leaf.shape[0] for leaf in jax.tree.leaves(names["grads"])} == {5}


@pytest.mark.parametrize(
    ("page", "peer"), [("from_pytorch.md", "torch"), ("from_equinox.md", "equinox")]
)
def test_losses_of_the_peer_are_those_of_the_page(page, peer):
    pytest.importorskip(peer)
    if peer == "equinox":
        pytest.importorskip("optax")
    [block] = blocks_of_the_peer(page)
    losses = np.round(run([block])["losses"], 4)
    assert f"\n{losses!r}\n" in (DOCS / page).read_text()
