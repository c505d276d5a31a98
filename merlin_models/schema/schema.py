"""Schema: an immutable, ordered set of columns."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf import json_format, text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from merlin_models._files import local_path, write_text
from merlin_models.schema import proto
from merlin_models.schema.column import ColumnSchema, Domain
from merlin_models.schema.tags import Tags

FILE_NAME = "schema.pbtxt"
Selector = str | Iterable[str] | Callable[[ColumnSchema], bool]


class _FromAnywhere:
    """A constructor that reads the same on the class and, as old notebooks have it, on an instance."""

    def __init__(self, function: Callable):
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> Callable:
        return self._function.__get__(owner, type(owner))


class Schema:
    """The columns of a data set, in order. Immutable: selecting, removing and adding return new schemas.

    Args:
        columns: :class:`ColumnSchema` objects, or names.

    Raises:
        ValueError: if two columns have one name.

    Example:
        >>> from merlin_models.schema import ColumnSchema, Schema, Tags
        >>> schema = Schema([
        ...     ColumnSchema.create_categorical("movieId", 1000, tags=[Tags.ITEM_ID]),
        ...     ColumnSchema.create_continuous("age", tags=["user"]),
        ... ])
        >>> schema.select_by_tag(Tags.CATEGORICAL).column_names
        ['movieId']
    """

    def __init__(self, columns: Iterable[ColumnSchema | str] = ()):
        items = [ColumnSchema(c) if isinstance(c, str) else c for c in columns]
        for item in items:
            if not isinstance(item, ColumnSchema):
                raise TypeError(f"columns must be ColumnSchema objects or names. Received: {type(item).__name__}")
        names = [item.name for item in items]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"Names of columns must be unique. Received twice: {repeated}")
        self._columns = {item.name: item for item in items}
        self._taken_out: frozenset[str] = frozenset()

    def _part(self, columns: Iterable[ColumnSchema]) -> Schema:
        """A schema that is made of this one, and knows what was left out for :attr:`table_keys`."""
        part = Schema(columns)
        part._taken_out = self.table_keys
        return part

    # ---- as a collection ----

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in their order."""
        return list(self._columns)

    @property
    def column_schemas(self) -> list[ColumnSchema]:
        """The columns, in their order."""
        return list(self._columns.values())

    @property
    def first(self) -> ColumnSchema:
        """The first column. Raises ValueError if there is none."""
        if not self._columns:
            raise ValueError("A schema must have a column to have a first one. Received: an empty schema")
        return next(iter(self._columns.values()))

    def __len__(self) -> int:
        return len(self._columns)

    def __iter__(self) -> Iterator[ColumnSchema]:
        return iter(self._columns.values())

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> ColumnSchema:
        if name not in self._columns:
            raise KeyError(f"The schema has no column {name!r}; it has {self.column_names}")
        return self._columns[name]

    def __add__(self, other: Schema) -> Schema:
        """Columns of both; a column of both must be equal in both."""
        both = dict(self._columns)
        for column in other:
            if both.setdefault(column.name, column) != column:
                raise ValueError(
                    f"Columns of one name must be equal to be added. Received: two columns '{column.name}'"
                )
        added = Schema(both.values())
        added._taken_out = self.table_keys | other.table_keys
        return added

    def __sub__(self, other: Schema) -> Schema:
        return self.remove_by_name(other.column_names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.column_schemas == other.column_schemas

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        lines = [f"  {c.name}: {c.dtype}, tags {list(c.tags)}" for c in self]
        return "Schema(\n" + "\n".join(lines) + "\n)" if lines else "Schema()"

    # ---- selecting ----

    def filter_column_schemas(self, keep: Callable[[ColumnSchema], bool]) -> Schema:
        """The columns for which ``keep`` is true."""
        return self._part(column for column in self if keep(column))

    def map_column_schemas(self, change: Callable[[ColumnSchema], ColumnSchema]) -> Schema:
        """Every column, changed."""
        return self._part(change(column) for column in self)

    def select_by_name(self, names: Selector) -> Schema:
        """The named columns in the schema's order; names that it does not have are ignored. A callable gets each name."""
        return self.filter_column_schemas(_by(names, lambda column: column.name))

    def remove_by_name(self, names: Selector) -> Schema:
        """The other columns; names that it does not have are ignored. A callable gets each name."""
        keep = _by(names, lambda column: column.name)
        return self.filter_column_schemas(lambda column: not keep(column))

    def select_by_tag(self, tags: Selector, match: str = "any") -> Schema:
        """Columns that carry any (``match="all"``: all) of the tags; a callable gets each column's tags."""
        return self.filter_column_schemas(_by_tag(tags, match))

    def remove_by_tag(self, tags: Selector, match: str = "any") -> Schema:
        """The other columns than :meth:`select_by_tag` selects."""
        keep = _by_tag(tags, match)
        return self.filter_column_schemas(lambda column: not keep(column))

    excluding_by_name = remove_by_name
    excluding_by_tag = remove_by_tag

    def select_by_type(self, dtypes: Any) -> Schema:
        """Columns of any of the dtypes; a callable gets each dtype."""
        return self.filter_column_schemas(_by_dtype(dtypes))

    def remove_by_type(self, dtypes: Any) -> Schema:
        """The other columns than :meth:`select_by_type` selects."""
        keep = _by_dtype(dtypes)
        return self.filter_column_schemas(lambda column: not keep(column))

    def split_by_name(self, names: Selector) -> tuple[Schema, Schema]:
        """(selected, the rest)."""
        return self.select_by_name(names), self.remove_by_name(names)

    def split_by_tag(self, tags: Selector, match: str = "any") -> tuple[Schema, Schema]:
        """``(select_by_tag(...), remove_by_tag(...))``."""
        return self.select_by_tag(tags, match), self.remove_by_tag(tags, match)

    def split_by_type(self, dtypes: Any) -> tuple[Schema, Schema]:
        """``(select_by_type(...), remove_by_type(...))``."""
        return self.select_by_type(dtypes), self.remove_by_type(dtypes)

    def add(self, column: ColumnSchema | str, **changes: Any) -> Schema:
        """The schema with one more column."""
        if isinstance(column, str):
            column = ColumnSchema(column, **changes)
        return self._part([*self, column])

    def copy(self, columns: Iterable[ColumnSchema] | None = None) -> Schema:
        """A schema of the same columns, or of ``columns`` in their place."""
        return self._part(self if columns is None else columns)

    # ---- what models ask for ----

    def _only_name(self, tag: Tags) -> str | None:
        names = self.select_by_tag(tag).column_names
        if len(names) > 1:
            raise ValueError(f"At most one column must have the tag '{tag}'. Received: {names}")
        return names[0] if names else None

    @property
    def item_id_column_name(self) -> str | None:
        """The column tagged ``item_id``, or None."""
        return self._only_name(Tags.ITEM_ID)

    @property
    def user_id_column_name(self) -> str | None:
        """The column tagged ``user_id``, or None."""
        return self._only_name(Tags.USER_ID)

    def categorical_cardinalities(self) -> dict[str, int]:
        """Name -> largest id plus one, for columns with an int_domain tagged or marked categorical."""
        return {column.name: column.cardinality for column in self if _is_categorical(column)}

    def categorical_domains(self) -> dict[str, str]:
        """Name -> domain name, for the same columns."""
        return {column.name: column.domain_name for column in self if _is_categorical(column)}

    @property
    def table_keys(self) -> frozenset[str]:
        """What an option by name may call the embedding tables: the columns with an int_domain, and their domains.

        Also those of the schemas that this one was selected from: options of a whole data set go to its parts.
        """
        names = [name for column in self if column.int_domain for name in (column.name, column.domain_name)]
        return self._taken_out.union(names)

    @property
    def feature_dtypes(self) -> dict[str, np.dtype | None]:
        """Names of the columns with their dtypes."""
        return {column.name: column.dtype for column in self}

    def filter_columns_from_dict(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of ``values`` whose keys are columns."""
        return {name: value for name, value in values.items() if name in self._columns}

    def with_tags_based_on_properties(self, using_value_count: bool = True, using_domain: bool = True) -> Schema:
        """Adds ``list`` to columns with lists, and ``categorical`` or ``continuous`` by the domain, where missing."""

        def tagged(column: ColumnSchema) -> ColumnSchema:
            if using_value_count and column.is_list:
                column = column.with_tags(Tags.LIST)
            if using_domain and not column.has_tag(Tags.CATEGORICAL, Tags.CONTINUOUS):
                if column.int_domain is not None and column.int_domain.is_categorical:
                    column = column.with_tags(Tags.CATEGORICAL)
                elif column.float_domain is not None:
                    column = column.with_tags(Tags.CONTINUOUS)
            return column

        return self.map_column_schemas(tagged)

    # ---- files ----

    @classmethod
    def create(cls, **columns: Any) -> Schema:
        """A schema from keyword arguments: name=ColumnSchema, or name=keyword arguments of ColumnSchema."""
        made = []
        for name, value in columns.items():
            if isinstance(value, ColumnSchema):
                made.append(value.with_name(name))
            elif isinstance(value, Mapping):
                made.append(ColumnSchema(name, **value))
            else:
                made.append(ColumnSchema(name, dtype=value))
        return cls(made)

    @_FromAnywhere
    def from_proto_text(cls, path_or_text: str | os.PathLike) -> Schema:
        """Reads text format, from a file's path or from the text itself.

        Raises:
            FileNotFoundError: if the argument looks like a path and no such file exists.
            ValueError: if the text is no schema, or a file is empty.
        """
        text = str(path_or_text)
        if isinstance(path_or_text, os.PathLike) or ("\n" not in text and "{" not in text and text):
            return cls._from_file(path_or_text, proto.parse_text)
        return cls._from_message(proto.parse_text(text))

    @_FromAnywhere
    def from_json(cls, text: str | os.PathLike) -> Schema:
        """Reads the JSON form of the protocol buffer, from a path or from the text itself.

        The older library's files, with extra metadata that does not name its type, are read too.

        Raises:
            FileNotFoundError: if the argument looks like a path and no such file exists.
            ValueError: if the text is no schema, or a file is empty.
        """
        if isinstance(text, os.PathLike) or not str(text).lstrip().startswith("{"):
            return cls._from_file(text, proto.parse_json)
        return cls._from_message(proto.parse_json(text))

    @classmethod
    def _from_message(cls, message: schema_pb2.Schema) -> Schema:
        return cls(proto.column_from_proto(feature) for feature in message.feature)

    @classmethod
    def _from_file(cls, path: str | os.PathLike, parse: Callable[[str], schema_pb2.Schema]) -> Schema:
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
            if not text.strip():
                raise ValueError("The schema must have a feature. Received: an empty file")
            return cls._from_message(parse(text))
        except ValueError as error:  # of the encoding, too
            raise ValueError(f"'{path}': {error}") from error

    def _to_message(self) -> schema_pb2.Schema:
        return schema_pb2.Schema(feature=[proto.column_to_proto(column) for column in self])

    def to_proto_text(self, path: str | os.PathLike | None = None) -> str:
        """The schema in text format, also written to ``path`` if given."""
        text = text_format.MessageToString(self._to_message())
        if path is not None:
            write_text(path, text)
        return text

    def to_json(self) -> str:
        """The schema as JSON, which :meth:`from_json` reads."""
        return json_format.MessageToJson(self._to_message())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Schema:
        """Reads a schema file, or ``schema.pbtxt`` in a folder."""
        path = local_path(path, "path")
        return cls.from_proto_text(path / FILE_NAME if path.is_dir() else path)

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes to a file ending in .pbtxt, or as ``schema.pbtxt`` into a folder, which is made. Returns the file."""
        path = local_path(path, "path")
        if path.suffix != ".pbtxt":
            path.mkdir(parents=True, exist_ok=True)
            path = path / FILE_NAME
        self.to_proto_text(path)
        return path


def _is_categorical(column: ColumnSchema) -> bool:
    return column.int_domain is not None and (column.int_domain.is_categorical or column.has_tag(Tags.CATEGORICAL))


def _by(selector: Selector, of: Callable[[ColumnSchema], Any]) -> Callable[[ColumnSchema], bool]:
    if callable(selector):
        return lambda column: bool(selector(of(column)))
    wanted = {selector} if isinstance(selector, str) else set(selector)
    return lambda column: of(column) in wanted


def _by_tag(tags: Selector, match: str) -> Callable[[ColumnSchema], bool]:
    if callable(tags):
        return lambda column: bool(tags(column.tags))
    wanted = [tags] if isinstance(tags, str) else list(tags)
    return lambda column: column.has_tag(*wanted, match=match)


def _by_dtype(dtypes: Any) -> Callable[[ColumnSchema], bool]:
    if callable(dtypes) and not isinstance(dtypes, type):
        return lambda column: bool(dtypes(column.dtype))
    many = isinstance(dtypes, list | tuple | set | frozenset)
    wanted = {np.dtype(dtype) for dtype in (dtypes if many else [dtypes])}
    return lambda column: column.dtype in wanted


__all__ = ["ColumnSchema", "Domain", "Schema"]
