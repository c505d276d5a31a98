"""Random rows for any schema, whose columns depend on the user, the item and the session."""

from __future__ import annotations

import itertools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from merlin_models.datasets.synthetic.draw import Lengths, draw_values, list_lengths
from merlin_models.datasets.synthetic.schemas import SCHEMA_NAMES, known_name, named_schema
from merlin_models.loader.columns import Column
from merlin_models.loader.dataset import Dataset
from merlin_models.loader.sizes import require_integer
from merlin_models.schema import ColumnSchema, Schema, Tags

_PARENTS = ((Tags.USER, Tags.USER_ID), (Tags.ITEM, Tags.ITEM_ID), (Tags.SESSION, Tags.SESSION_ID))


def generate_data(
    input: str | os.PathLike | Schema,
    num_rows: int,
    set_sizes: Sequence[float] = (1.0,),
    min_session_length: int | None = None,
    max_session_length: int | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Dataset | tuple[Dataset, ...]:
    """Random rows for a schema: for tests, examples and benchmarks, not to learn from.

    - Ids are log-normal (3, 1), rounded down and clipped to 1 and the largest id, so that few are frequent; 0 is for padding.
    - Columns tagged USER, ITEM or SESSION are the same wherever the id of that tag is. Where the ids are lists, lists of
      the same length depend on them value by value.
    - Continuous columns are uniform in their domain, or in [0, 1) without one; binary targets are 0 or 1, as often.
    - Lists have the lengths of the schema, evenly; all columns tagged SEQUENCE have one length in a row.

    Args:
        input: a schema, the name of one in ``SCHEMA_NAMES`` (``e-commerce`` or ``ecommerce``, ``music_streaming``, ...), or
            a path: a schema.pbtxt, a JSON file, or a folder with a schema.pbtxt.
        num_rows: of all sets together.
        set_sizes: the sets' shares of the rows, which add up to 1.
        min_session_length, max_session_length: of all lists, in the place of the schema's lengths.
        device: "cpu".
        seed: not negative; the same arguments make the same rows.

    Returns:
        One data set, or a tuple of as many as there are sizes. A data set has ``schema``, ``to_pandas()`` and
        ``to_parquet(folder)``, and a loader takes it.

    Raises:
        FileNotFoundError: if a path has no schema.
        ValueError: if an argument is unfit.

    Example:
        >>> from merlin_models.datasets.synthetic import generate_data
        >>> train, valid = generate_data("music-streaming", 1000, set_sizes=(0.8, 0.2))
        >>> train.num_rows, valid.num_rows, train.schema["item_id"].cardinality
        (800, 200, 10001)
    """
    num_rows = require_integer("num_rows", num_rows, 1)
    if device != "cpu":
        raise ValueError(f"device must be 'cpu': rows are drawn by NumPy. Received: {device!r}.")
    bounds = _bounds(set_sizes, num_rows)
    schema = with_lengths(find_schema(input), min_session_length, max_session_length)
    table = draw_table(schema, num_rows, np.random.default_rng(require_integer("seed", seed, 0)))
    parts = [table.slice(start, stop - start) for start, stop in itertools.pairwise(bounds)]
    sets = tuple(Dataset(part, schema) for part in parts)
    return sets if len(sets) > 1 else sets[0]


def find_schema(input: str | os.PathLike | Schema) -> Schema:
    """The schema that is meant by a name, a path or itself; as in :func:`generate_data`."""
    if isinstance(input, Schema):
        return input
    if not isinstance(input, (str, os.PathLike)):
        raise ValueError(f"input must be a Schema, a name or a path. Received: {type(input).__name__}.")
    name = known_name(input) if isinstance(input, str) else None
    if name is not None:
        return named_schema(name)
    path = pathlib.Path(input)
    if path.suffix == ".json" and path.is_file():
        return Schema().from_json(path)
    if path.is_file() or (path / "schema.pbtxt").is_file():
        return Schema.load(path)
    if path.exists() or len(path.parts) > 1 or path.suffix in (".json", ".pbtxt"):
        raise FileNotFoundError(f"A path must be a schema's file or a folder with a schema.pbtxt. Received: '{path}'.")
    raise ValueError(f"input must be one of {', '.join(SCHEMA_NAMES)}, a path or a Schema. Received: {input!r}.")


def with_lengths(schema: Schema, shortest: int | None, longest: int | None) -> Schema:
    """The schema with other lengths of its lists, if they are given.

    Raises:
        ValueError: if ``shortest`` is below 0, or above ``longest``.
    """
    if shortest is None and longest is None:
        return schema
    if shortest is not None:
        shortest = require_integer("min_session_length", shortest, 0)
    if longest is not None:
        longest = require_integer("max_session_length", longest, max(1, shortest or 0))

    def changed(column: ColumnSchema) -> ColumnSchema:
        if not column.is_list:
            return column
        least, most = list_lengths(column)
        least = min(least, longest) if shortest is None else shortest
        most = max(most, least) if longest is None else longest
        properties = {key: value for key, value in column.properties.items() if key not in ("is_list", "is_ragged")}
        return ColumnSchema(
            column.name,
            dtype=column.dtype,
            tags=column.tags,
            int_domain=column.int_domain,
            float_domain=column.float_domain,
            value_count=(least, most),
            properties=properties,
        )

    return schema.map_column_schemas(changed)


class _Parent(NamedTuple):
    """A column of ids: `place` has the position of each value among the `different` ones."""

    ids: Column
    place: np.ndarray
    different: int


def draw_table(schema: Schema, num_rows: int, rng: np.random.Generator) -> pa.Table:
    """Rows for a schema, in the order of its columns; see :func:`generate_data`."""
    lengths = Lengths(rng, num_rows)
    drawn: dict[str, Column] = {}
    parents: dict[str, _Parent] = {}
    for tag, id_tag in _PARENTS:
        ids = [column for column in schema.select_by_tag(id_tag) if column.name not in drawn]
        if len(ids) != 1:
            continue  # without an id, or with several, there is nothing that its columns could depend on
        values = drawn[ids[0].name] = draw_values(rng, ids[0], lengths.of(ids[0]))
        different, place = np.unique(values.values, return_inverse=True)
        parent = _Parent(values, place.reshape(-1), len(different))
        for column in schema.select_by_tag(tag):
            parents.setdefault(column.name, parent)
    for column in schema:
        if column.name not in drawn:
            drawn[column.name] = _draw_column(rng, column, parents.get(column.name), lengths)
    return pa.table({column.name: _to_arrow(drawn[column.name]) for column in schema})


def _draw_column(rng: np.random.Generator, column: ColumnSchema, parent: _Parent | None, lengths: Lengths) -> Column:
    in_sequence = column.is_list and column.has_tag(Tags.SEQUENCE)
    if parent is None or (parent.ids.row_splits is None and in_sequence):
        return draw_values(rng, column, lengths.of(column))
    if parent.ids.row_splits is None:
        return draw_values(rng, column, Lengths(rng, parent.different).of(column)).take(parent.place)
    splits = lengths.of(column)
    if splits is not parent.ids.row_splits:
        return draw_values(rng, column, splits)
    return Column(draw_values(rng, column, parent.different).values.take(parent.place), splits)


def _to_arrow(column: Column) -> pa.Array:
    values = pa.array(column.values)
    if column.row_splits is None:
        return values
    return pa.ListArray.from_arrays(pa.array(column.row_splits, pa.int32()), values)


def _bounds(set_sizes: Sequence[float], num_rows: int) -> list[int]:
    sizes = [float(size) for size in set_sizes]
    if not sizes or min(sizes) <= 0 or not math.isclose(sum(sizes), 1, abs_tol=1e-6):
        raise ValueError(f"set_sizes must be positive and add up to 1. Received: {tuple(set_sizes)}.")
    bounds = [round(num_rows * sum(sizes[:count])) for count in range(len(sizes))] + [num_rows]
    if any(stop <= start for start, stop in itertools.pairwise(bounds)):
        raise ValueError(f"set_sizes must leave a row to each set. Received: {tuple(set_sizes)} of {num_rows} rows.")
    return bounds
