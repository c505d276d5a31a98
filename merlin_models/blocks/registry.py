"""Registry: names for classes that an argument may give as a string."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Registry:
    """A table from names to classes.

    Args:
        kind: what the entries are, for error messages.

    Example:
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
        return sorted(self._entries)
