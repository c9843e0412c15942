"""What griffe, which reads the package for mkdocs, has to be told about it."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Shows `Example:` in docstrings as the section that griffe calls `Examples:`."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
