"""SeenItems: which items a user has had, for what recommends others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from merlin_models._ids import as_int64
from merlin_models.layers.catalogue import NO_ID


class SeenItems:
    """The items of each user, from interactions.

    Args:
        users, items: integers of one length, less than 2**63, an interaction each; repeated pairs count once.

    Example:
        >>> from merlin_models.models.seen import SeenItems
        >>> seen = SeenItems(users=[7, 5, 7], items=[1, 2, 3])
        >>> seen.of([5, 7, 9]).tolist()
        [[2, -1], [1, 3], [-1, -1]]
    """

    def __init__(self, users: Any, items: Any):
        users, items = (_ids(name, values) for name, values in (("users", users), ("items", items)))
        if len(users) != len(items):
            raise ValueError(f"users and items must be of one length. Received: {len(users)} and {len(items)}")
        pairs = np.unique(np.stack([users, items], axis=1), axis=0)
        self.users, first = np.unique(pairs[:, 0], return_index=True)
        self._starts = np.append(first, len(pairs))
        self._items = pairs[:, 1]

    @classmethod
    def from_frame(cls, frame: Any, user: str, item: str) -> SeenItems:
        """From a DataFrame, or a dictionary of arrays, with these two columns.

        Raises:
            ValueError: if it lacks one of them.
        """
        missing = [name for name in (user, item) if name not in frame]
        if missing:
            raise ValueError(f"Interactions must have the columns '{user}' and '{item}'. Received: {list(frame)}")
        return cls(np.asarray(frame[user]), np.asarray(frame[item]))

    def of(self, users: Any) -> np.ndarray:
        """The items of users (rows,), as (rows, the most that one of them has) int64, padded with -1."""
        users = _ids("users", users)
        place = np.minimum(np.searchsorted(self.users, users), max(len(self.users) - 1, 0))
        known = self.users[place] == users if len(self.users) else np.zeros(len(users), bool)
        start = np.where(known, self._starts[place], 0)
        count = np.where(known, self._starts[np.minimum(place + 1, len(self.users))] - start, 0)
        offsets = np.arange(count.max(initial=0))
        inside = offsets < count[:, np.newaxis]
        rows = np.full(inside.shape, NO_ID, np.int64)
        rows[inside] = self._items[(start[:, np.newaxis] + offsets)[inside]]
        return rows


def as_seen(seen: Any, user: str | None, item: str | None) -> SeenItems | None:
    """Seen items from an object, a DataFrame or dictionary with the columns ``user`` and ``item``, or None.

    Raises:
        TypeError: for anything else.
        ValueError: if the columns are not known or not there.
    """
    if seen is None or isinstance(seen, SeenItems):
        return seen
    if not isinstance(seen, Mapping) and not hasattr(seen, "columns"):
        raise TypeError(
            "exclude_seen must be a SeenItems, or a DataFrame or dictionary of interactions. "
            f"Received: {type(seen).__name__}"
        )
    if user is None or item is None:
        raise ValueError(
            "exclude_seen must be a SeenItems where the names of the id columns are not known: one feature of the queries "
            "must be tagged user_id, and the candidates' ids must have a name."
        )
    return SeenItems.from_frame(seen, user, item)


def _ids(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.size and values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers. Received: {values.dtype}")
    return as_int64(name, values.reshape(-1))
