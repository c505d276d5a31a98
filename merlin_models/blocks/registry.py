"""Registry: names for classes that an argument may give as a string."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class Registry:
    """A table from names to classes.

    Args:
        kind: what the entries are, for error messages.

    Example:
        >>> from merlin_models.blocks import Registry
        >>> shapes = Registry("shape")
        >>> @shapes.register("square")
        ... class Square: ...
        >>> shapes.get("square") is Square
        True
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Any] = {}

    def register(self, *names: str) -> Callable[[Any], Any]:
        """A decorator that enters a class under one or several names.

        Raises:
            KeyError: if a name is taken.
        """
        taken = [name for name in names if name in self._entries]
        if taken:
            raise KeyError(f"Names of a {self.kind} must be unique. Received again: {taken}")

        def enter(entry: Any) -> Any:
            self._entries.update(dict.fromkeys(names, entry))
            return entry

        return enter

    def get(self, name: str) -> Any:
        """The entry of a name.

        Raises:
            KeyError: for an unknown name; lists the known ones.
        """
        if name not in self._entries:
            raise KeyError(f"A {self.kind} must be one of {self.names}. Received: {name!r}")
        return self._entries[name]

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)


BLOCKS = Registry("block")


def get_block(block: Any) -> Any:
    """A block from its name, or as given.

    Args:
        block: the name of a block in ``BLOCKS``, or anything else.

    Returns:
        A new block of that name, or what came.

    Raises:
        KeyError: for an unknown name; lists the known ones.
        ValueError: for the name of a block that cannot be made without arguments.

    Example:
        >>> from merlin_models.blocks import get_block
        >>> type(get_block("continuous-powers")).__name__
        'ContinuousPowers'
    """
    if not isinstance(block, str):
        return block
    import merlin_models.transformers
    import merlin_models.transforms  # noqa: F401  both enter their classes

    entry = BLOCKS.get(block)
    # Of a class its __init__: some releases of Python 3.11 tell the signature of Keras' __new__ instead.
    parameters = list(inspect.signature(entry.__init__ if isinstance(entry, type) else entry).parameters.values())
    required = [
        parameter.name
        for parameter in parameters[isinstance(entry, type) :]
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise ValueError(
            f"A block given by its name must need no arguments. Received: {block!r}, which needs {required}"
        )
    return entry()
