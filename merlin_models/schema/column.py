"""ColumnSchema: one column's name, type, domain, tags and properties."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from merlin_models.schema.tags import Tags, expand, normalize, normalize_all


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values of a column: ``min`` to ``max``, both included, under a name that columns may share.

    Attributes:
        min, max: the least and the greatest value.
        name: columns whose domains have one name share an embedding table; None for the column's own.
        is_categorical: whether values are ids.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.schema import Domain
        >>> movies = Domain(0, 1000, "movies", is_categorical=True)
        >>> ml.ColumnSchema("seen", "int64", ["categorical"], movies, value_count=(0, 20)).cardinality
        1001
    """

    min: float
    max: float
    name: str | None = None
    is_categorical: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class ColumnSchema:
    """One column. Immutable: the ``with_...`` methods return changed copies.

    Attributes:
        name: of the column.
        dtype: a NumPy dtype, or None if not known.
        tags: strings, without repeats; see :class:`Tags`.
        int_domain, float_domain: the :class:`Domain` of its values, or None.
        value_count: (min, max) number of values of a list, 0 for a bound that is not known; None for a scalar.
        properties: a dictionary of plain JSON values, e.g. what NVTabular recorded.
        shape: sizes of a fixed shape without the batch, or None.

    Raises:
        ValueError: for an empty name, two domains, a shape beside a value_count, a domain with min above max, or tags
            that exclude each other.

    Example:
        >>> import merlin_models.tf as ml
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> movie.cardinality, movie.is_list, [str(tag) for tag in movie.tags]
        (1001, False, ['item_id', 'categorical'])
    """

    name: str
    dtype: np.dtype | None = None
    tags: tuple[str, ...] = ()
    int_domain: Domain | None = None
    float_domain: Domain | None = None
    value_count: tuple[int, int] | None = None
    properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a non-empty string. Received: {self.name!r}")
        if self.int_domain is not None and self.float_domain is not None:
            raise ValueError(f"Column '{self.name}' must have at most one domain. Received: int and float domains")
        if self.shape is not None and self.value_count is not None:
            raise ValueError(
                f"Column '{self.name}' must have a fixed shape or a value_count, not both. Received: {self.shape} and "
                f"{self.value_count}"
            )
        for domain in (self.int_domain, self.float_domain):
            if domain is not None and domain.min > domain.max:
                raise ValueError(
                    f"The domain of column '{self.name}' must have min <= max. Received: {domain.min} and {domain.max}"
                )
        put = object.__setattr__
        put(self, "dtype", None if self.dtype is None else np.dtype(self.dtype))
        put(self, "tags", normalize_all(self.tags))
        put(self, "properties", _plain(json.loads(json.dumps(dict(self.properties)))))
        put(self, "value_count", None if self.value_count is None else tuple(int(n) for n in self.value_count))
        put(self, "shape", None if self.shape is None else tuple(int(n) for n in self.shape))

    # ---- what it is ----

    @property
    def is_list(self) -> bool:
        """Whether a row holds a list of values."""
        return (
            self.value_count is not None
            or bool(self.shape)
            or bool(self.properties.get("is_list", False))
            or self.has_tag(Tags.LIST)
        )

    @property
    def is_ragged(self) -> bool:
        """Whether lists of different lengths occur."""
        if not self.is_list:
            return False
        if self.value_count is not None and self.value_count != (0, 0):
            return self.value_count[0] != self.value_count[1]
        return bool(self.properties.get("is_ragged", not self.shape))

    @property
    def cardinality(self) -> int:
        """Number of rows that a table for the column needs: the largest id plus one.

        Raises:
            ValueError: if the column has no int_domain.
        """
        if self.int_domain is None:
            raise ValueError(f"Column '{self.name}' must have an int_domain to have a cardinality. Received: none")
        return int(self.int_domain.max) + 1

    @property
    def domain_name(self) -> str:
        """The domain's name, or the column's: columns of one domain share a table."""
        return (self.int_domain and self.int_domain.name) or self.name

    def has_tag(self, *tags: str, match: str = "any") -> bool:
        """Whether the column carries any (or, with ``match="all"``, all) of the tags.

        A compound and its parts are the same: ``Tags.USER_ID`` matches "user_id", and "user" with "id".
        """
        if match not in ("any", "all"):
            raise ValueError(f"match must be 'any' or 'all'. Received: {match!r}")
        own = expand(self.tags)
        return (any if match == "any" else all)(normalize(tag) in own for tag in tags)

    # ---- changed copies ----

    def with_name(self, name: str) -> ColumnSchema:
        """A copy of another name."""
        return dataclasses.replace(self, name=name)

    def with_tags(self, tags: str | Iterable[str]) -> ColumnSchema:
        """A copy with more tags."""
        return dataclasses.replace(self, tags=(*self.tags, *normalize_all(tags)))

    def with_properties(self, properties: Mapping[str, Any]) -> ColumnSchema:
        """A copy with more properties; equal keys are replaced."""
        return dataclasses.replace(self, properties={**self.properties, **properties})

    def with_dtype(self, dtype: Any) -> ColumnSchema:
        """A copy of another dtype."""
        return dataclasses.replace(self, dtype=dtype)

    # ---- constructors ----

    @classmethod
    def create_categorical(
        cls,
        name: str,
        num_items: int,
        shape: Iterable[int] | None = None,
        value_count: tuple[int, int] | Mapping[str, int] | None = None,
        min_index: int = 0,
        tags: str | Iterable[str] | None = None,
        **properties: Any,
    ) -> ColumnSchema:
        """A categorical column with ids from ``min_index`` to ``num_items``, both included (0 is for padding)."""
        return cls(
            name,
            dtype=np.int64,
            tags=tuple(dict.fromkeys([*normalize_all(tags), "categorical"])),
            int_domain=Domain(min_index, num_items, name, True),
            value_count=_pair(value_count),
            shape=None if shape is None else tuple(shape),
            properties=properties,
        )

    @classmethod
    def create_continuous(
        cls,
        name: str,
        is_float: bool = True,
        min_value: float | None = None,
        max_value: float | None = None,
        shape: Iterable[int] | None = None,
        value_count: tuple[int, int] | Mapping[str, int] | None = None,
        tags: str | Iterable[str] | None = None,
        **properties: Any,
    ) -> ColumnSchema:
        """A continuous column; its domain is recorded if both bounds are given."""
        if (min_value is None) != (max_value is None):
            raise ValueError(f"min_value and max_value must be given together. Received: {min_value} and {max_value}")
        domain = None if min_value is None else Domain(min_value, max_value, name)
        return cls(
            name,
            dtype=np.float32 if is_float else np.int64,
            tags=tuple(dict.fromkeys([*normalize_all(tags), "continuous"])),
            int_domain=None if is_float else domain,
            float_domain=domain if is_float else None,
            value_count=_pair(value_count),
            shape=None if shape is None else tuple(shape),
            properties=properties,
        )

    # ---- identity ----

    def _key(self) -> tuple:
        return (
            self.name,
            self.dtype,
            frozenset(self.tags),
            self.int_domain,
            self.float_domain,
            self.value_count,
            self.shape,
            json.dumps(self.properties, sort_keys=True),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ColumnSchema) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def _plain(value: Any) -> Any:
    """Whole floats become int: files keep all numbers as floats, and 3.0 must stay equal to 3."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _pair(value_count: Any) -> tuple[int, int] | None:
    if isinstance(value_count, Mapping):
        return int(value_count.get("min", 0)), int(value_count.get("max", 0))
    return value_count
