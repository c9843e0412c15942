"""Figures of arrays: params, what layers put out, tables of vectors, attention weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.paths import leaf_paths
from jaxnn._core.types import Arrays
from jaxnn.plot._figures import BLUE, labelled, new_figure, numbers, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CLASSES = 20  # that colours tell apart


@checked
def histograms(values: Arrays, *, bins: int = 40, most: int = 24) -> "Figure":
    """How the numbers of each array are distributed, with their mean and standard deviation.

    Args:
        values: a tree of arrays, with a panel for each: params, gradients, or the dict of what
            layers put out that `nn.capture` returns last. Numbers that are not finite are counted
            apart.
        bins: the number of bars.
        most: the largest number of arrays to show, the first ones.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: there are no arrays; `bins` or `most` is less than 1.

    Example:
        >>> import jax, jax.numpy as jnp, jaxnn as nn
        >>> params, _ = nn.mlp([8, 2]).init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> [axes.get_xlabel() for axes in nn.plot.histograms(params).axes]
        ['dense_0/bias', 'dense_0/kernel', 'dense_1/bias', 'dense_1/kernel']
    """
    if bins < 1:
        raise ValueError(f"histograms: bins is {bins}, expected at least 1")
    leaves = jax.tree.leaves(values)
    figure, every = panels("histograms", len(leaves), most, 2.6, 2.1)
    for axes, path, leaf in zip(every, leaf_paths(values), leaves, strict=False):
        array = numbers("histograms", path, leaf, np.ndim(leaf)).ravel()
        finite = array[np.isfinite(array)]
        title = f"{finite.mean():.2g} ± {finite.std():.2g}" if finite.size else "none"
        if finite.size < array.size:
            title += f", {array.size - finite.size} not finite"
        axes.hist(finite, bins, color=BLUE)
        labelled(axes, path, "", title)
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=7)
    return figure


@checked
def embedding(
    vectors: ArrayLike, labels: ArrayLike | None = None, names: Sequence[str] | None = None
) -> "Figure":
    """Vectors in the plane in which they differ most: their first two principal components.

    Args:
        vectors: `(n, features)`: the `embedding` of a table, or what a layer puts out.
        labels: `(n,)`, by which points are coloured: whole numbers for up to 20 classes, or any.
        names: a name for each vector, written beside it.

    Returns:
        A `matplotlib.figure.Figure`; the axes tell their shares of the variance.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: there are less than two vectors or features; a number is not finite; there are
            not as many labels or names.

    Example:
        >>> import jaxnn as nn
        >>> vectors = [[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
        >>> nn.plot.embedding(vectors, [0, 0, 1, 1]).axes[0].get_xlabel()
        'component 1, 90% of the variance'
    """
    array = numbers("embedding", "vectors", vectors, 2)
    n, features = array.shape
    if n < 2 or features < 2:
        raise ValueError(
            f"embedding: vectors has shape {array.shape}, expected two vectors and features at "
            "least"
        )
    if not np.isfinite(array).all():
        raise ValueError("embedding: vectors has numbers that are not finite")
    for name, given in (("labels", labels), ("names", names)):
        if given is not None and np.shape(given) != (n,):
            raise ValueError(f"embedding: {name} has shape {np.shape(given)}, expected ({n},)")
    left, sizes, _ = np.linalg.svd(array - array.mean(0), full_matrices=False)
    left *= np.sign(left[np.abs(left).argmax(0), np.arange(len(sizes))])  # the sign is free
    x, y = (left * sizes)[:, :2].T
    shares = sizes**2 / max(np.sum(sizes**2), np.finfo(float).tiny)
    figure = new_figure(5.4, 4.4)
    axes = figure.subplots()
    _points(figure, axes, x, y, None if labels is None else np.asarray(labels))
    for at, text in zip(zip(x, y, strict=True), names or (), strict=False):
        axes.annotate(text, at, xytext=(3, 3), textcoords="offset points", fontsize=7)
    if names is not None:
        axes.margins(x=0.12)
    first, second = (f"component {i + 1}, {shares[i]:.0%} of the variance" for i in range(2))
    labelled(axes, first, second)
    return figure


def _points(figure: Any, axes: Any, x: np.ndarray, y: np.ndarray, labels: Any) -> None:
    if labels is None:
        axes.scatter(x, y, s=14, color=BLUE)
        return
    classes = np.unique(labels)
    if labels.dtype.kind not in "biu" or len(classes) > _MOST_CLASSES:
        figure.colorbar(axes.scatter(x, y, s=14, c=labels, cmap="viridis"), ax=axes)
        return
    from matplotlib import colormaps

    colours = colormaps["tab10" if len(classes) <= 10 else "tab20"]
    for i, one in enumerate(classes):
        chosen = labels == one
        axes.scatter(x[chosen], y[chosen], s=14, color=colours(i), label=str(one))
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)


@checked
def attention_maps(
    weights: ArrayLike,
    *,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    most: int = 16,
) -> "Figure":
    """What each head attends to: a row for each query, a column for each key.

    Args:
        weights: `(heads, queries, keys)` or `(queries, keys)`: those of one example, as
            `nn.attention(..., return_weights=True)` gives them.
        queries: the names of the queries, such as tokens, from top to bottom.
        keys: those of the keys, from left to right.
        most: the largest number of heads to show, the first ones.

    Returns:
        A `matplotlib.figure.Figure` with a panel for each head; the colours of all begin at 0 and
        end at the largest weight.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: `weights` has other axes, as one for a batch; there are not as many names;
            `most` is less than 1.

    Example:
        >>> import jax, jaxnn as nn
        >>> q = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))  # batch, length, heads, features
        >>> _, weights = nn.functional.dot_product_attention(q, q, q, return_weights=True)
        >>> figure = nn.plot.attention_maps(weights[0])
        >>> [axes.get_title() for axes in figure.axes[:4]]
        ['head 0', 'head 1', 'head 2', 'head 3']
    """
    array = numbers("attention_maps", "weights", weights, (2, 3))
    if not array.size:
        raise ValueError(f"attention_maps: weights has shape {array.shape}, expected no empty axis")
    maps = array.reshape(-1, *array.shape[-2:])
    for name, given, size in (("queries", queries, maps.shape[1]), ("keys", keys, maps.shape[2])):
        if given is not None and len(given) != size:
            raise ValueError(f"attention_maps: {name} has {len(given)} names, expected {size}")
    size = min(max(2.2, 0.16 * max(maps.shape[1:])), 4.0)
    figure, every = panels("attention_maps", len(maps), most, size, size)
    top = np.max(maps[: len(every)])
    for head, axes in enumerate(every):
        image = axes.imshow(maps[head], cmap="Blues", vmin=0, vmax=top, aspect="auto")
        axes.set_title(f"head {head}" if array.ndim == 3 else "", fontsize=9)
        axes.tick_params(labelsize=7)
        if queries is not None:
            axes.set_yticks(range(len(queries)), queries)
        if keys is not None:
            axes.set_xticks(range(len(keys)), keys, rotation=90)
    figure.supxlabel("keys", fontsize=9)
    figure.supylabel("queries", fontsize=9)
    figure.colorbar(image, ax=every, shrink=0.6)
    return figure
