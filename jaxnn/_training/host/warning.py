"""Warnings that name the line of the user's that they are about."""

import sys
import warnings


def warn(text: str) -> None:
    """Warn at the line, outside of this package, that called into it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, RuntimeWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "jaxnn"
