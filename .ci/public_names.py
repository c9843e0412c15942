"""What griffe, which reads the package for mkdocs, has to be told about it."""

from contextlib import suppress
from typing import Any

import griffe


class PublicNames(griffe.Extension):
    """Documents the names in `__all__`, and their examples."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Make `Example:` the section that griffe calls `Examples:`."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Let an exported function hide the submodule of the same name, as it does in Python."""
        for package in pkg.modules.values():
            names = package.members
            exported = [names[n] for n in package.exports or () if n in names]
            for member in exported:
                if member.is_alias:
                    with suppress(griffe.AliasResolutionError):  # what is jax's is documented there
                        member.resolve_target()
            for member in exported:
                if not member.is_alias and member.is_module and member.name in member.members:
                    function = member.members[member.name]
                    names[member.name] = griffe.Alias(member.name, function, parent=package)
