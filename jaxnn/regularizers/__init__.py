"""Penalties on parameters: functions of the params, to be added to a loss.

`where` chooses the leaves: a glob on the path or several of them ("*" also crosses "/"), a
predicate `(path, leaf) -> bool`, or a tree of booleans. The default is every leaf named `kernel`.
"""

from jaxnn.regularizers._penalties import (
    elastic_net,
    l1,
    l2,
)

__all__ = ["elastic_net", "l1", "l2"]
