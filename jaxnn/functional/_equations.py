"""Affine maps in Einstein's notation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxnn._core.arguments import checked
from jaxnn._core.arrays import check_shape, compute_dtype, spread
from jaxnn.functional._dense import linear_general


@checked
def einsum(
    equation: str, x: ArrayLike, kernel: ArrayLike, bias: ArrayLike | None = None
) -> jax.Array:
    """An affine map in Einstein's notation: `y = einsum(equation, x, kernel) + bias`.

    Args:
        equation: `"<letters of x>,<letters of kernel>-><letters of y>"` as in `jnp.einsum`, where
            `...` in `x` and `y` stands for any further axes.
        x: the shape of its letters.
        kernel: the shape of its letters.
        bias: the shape of those letters of `y` that are letters of `kernel`, in the order of `y`;
            or None.

    Returns:
        The shape of the letters of `y`, in the dtype of `x`, to which kernel and bias are cast (an
        integer `x` is cast to theirs).

    Raises:
        ValueError: `equation` is of another form, or the shapes do not fit.

    Example:
        >>> import jax.numpy as jnp, jaxnn as nn
        >>> x, kernel, bias = jnp.ones((2, 5, 6)), jnp.ones((6, 3, 4)), jnp.ones((3, 4))
        >>> nn.functional.einsum("...d,dhk->...hk", x, kernel, bias).shape
        (2, 5, 3, 4)
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    terms = parse_equation(equation)
    sizes = terms.sizes_in(x.shape)
    expected = tuple(
        sizes.get(letter, size) for letter, size in zip(terms.kernel, kernel.shape, strict=False)
    )
    if kernel.ndim != len(terms.kernel) or kernel.shape != expected:
        raise ValueError(
            f"einsum: kernel has shape {kernel.shape} and x {x.shape}, expected shapes that fit "
            f"the equation '{equation}'"
        )
    sizes |= dict(zip(terms.kernel, kernel.shape, strict=True))
    if bias is not None:
        check_shape("einsum", "bias", bias, tuple(sizes[letter] for letter in terms.features))
    if terms.is_product:  # a flat one, which is twice as fast on CPU
        matrix = jnp.einsum(f"{terms.kernel}->{terms.contracted}{terms.features}", kernel)
        axes = [axis_of(letter, terms.x, x.ndim) for letter in terms.contracted]
        y = linear_general(x, matrix, bias, axis=axes)
        return jnp.einsum(f"{terms.kept}{terms.features}->{terms.y}", y)
    dtype = compute_dtype(x, kernel)
    y = jnp.einsum(equation, x.astype(dtype), kernel.astype(dtype))
    if bias is None:
        return y
    axes = [axis_of(letter, terms.y, y.ndim) for letter in terms.features]
    return y + spread(jnp.asarray(bias).astype(dtype), axes, y.shape)


class Equation(NamedTuple):
    """The letters of an equation `x,kernel->y`, `...` and all."""

    x: str
    kernel: str
    y: str

    @property
    def features(self) -> str:
        """The letters of the kernel in the order of the output."""
        return "".join(letter for letter in self.y if letter in self.kernel)

    @property
    def contracted(self) -> str:
        """The letters of the kernel that are summed over, in the order of `x`."""
        return "".join(
            letter for letter in self.x if letter in self.kernel and letter not in self.y
        )

    @property
    def kept(self) -> str:
        """The letters of `x` that are not summed over with the kernel."""
        return "".join(letter for letter in self.x if letter not in self.contracted)

    @property
    def is_product(self) -> bool:
        """Whether the kernel is a matrix from `contracted` to `features`, for each of `kept`."""
        return (
            bool(self.contracted)
            and len(set(self.contracted)) == len(self.contracted)
            and sorted(self.y) == sorted(self.kept + self.features)
        )

    def sizes_in(self, shape: tuple[int, ...]) -> dict[str, int]:
        """The size of each letter of `x`."""
        before, dots, after = self.x.partition("...")
        fits = len(before + after) <= len(shape) if dots else len(before) == len(shape)
        if not fits:
            raise ValueError(f"einsum: x has shape {shape}, expected axes as in '{self.x}'")
        end = shape[len(shape) - len(after) :]
        return dict(zip(before + after, shape[: len(before)] + end, strict=True))


def axis_of(letter: str, letters: str, ndim: int) -> int:
    """The axis of a letter in an array of `ndim` axes, `letters` having `...` for some of them."""
    before, _, after = letters.partition("...")
    return before.index(letter) if letter in before else ndim - len(after) + after.index(letter)


def parse_equation(equation: str) -> Equation:
    """The letters of an equation, checked."""
    inputs, arrow, y = equation.replace(" ", "").partition("->")
    x, comma, kernel = inputs.partition(",")
    has_form = bool(arrow and comma) and kernel.isalpha()
    if not (has_form and set(kernel) <= set(x + y) and set(y) <= set(x + kernel)):
        raise ValueError(
            f"einsum: equation is '{equation}', expected the form 'x,kernel->y', with each letter "
            "of the kernel in x or y, and of y in x or the kernel"
        )
    if len(set(kernel)) < len(kernel):
        raise ValueError(f"einsum: equation is '{equation}', the kernel has a letter twice")
    return Equation(x, kernel, y)
