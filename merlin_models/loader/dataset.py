"""Rows together with their schema, and the schema that any data bring with them. No TensorFlow here."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from merlin_models._files import replacing
from merlin_models.schema import Schema, Tags


class Dataset:
    """Rows in memory and the schema that says what they are.

    A loader takes it as it is, with its features and labels by the schema's tags.

    Args:
        table: has all columns of the schema, and may have more.
        schema: of the rows.

    Raises:
        TypeError: if ``table`` is no Arrow table or ``schema`` no schema.
        ValueError: if the table lacks a column of the schema.

    Example:
        >>> import pyarrow as pa
        >>> from merlin_models.loader.dataset import Dataset
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> schema = Schema([ColumnSchema.create_categorical("item", 3)])
        >>> Dataset(pa.table({"item": [3, 1, 2]}), schema).num_rows
        3
    """

    def __init__(self, table: pa.Table, schema: Schema):
        if not isinstance(table, pa.Table):
            raise TypeError(f"table must be a pyarrow.Table. Received: {type(table).__name__}.")
        if not isinstance(schema, Schema):
            raise TypeError(f"schema must be a merlin_models.schema.Schema. Received: {type(schema).__name__}.")
        missing = [name for name in schema.column_names if name not in table.column_names]
        if missing:
            raise ValueError(f"table must have all columns of the schema. Received: none of {missing}.")
        self.table = table
        self.schema = schema

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.table.num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __repr__(self) -> str:
        return f"Dataset({self.num_rows} rows of {self.schema.column_names})"

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``."""
        return self.table.to_pandas()

    compute = to_pandas  # what the older library's data sets have

    def head(self, rows: int = 5) -> Any:
        """The first rows as a ``pandas.DataFrame``."""
        return self.table.slice(0, rows).to_pandas()

    def to_parquet(self, folder: str | os.PathLike, row_group_rows: int = 65_536) -> pathlib.Path:
        """Writes part_0.parquet and schema.pbtxt into a folder, which is made where it is missing. Returns the folder."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "part_0.parquet") as part:
            pq.write_table(self.table, part, row_group_size=row_group_rows, write_page_checksum=True)
        self.schema.save(folder)
        return folder

    def to_merlin(self) -> Any:
        """The rows as a ``merlin.io.Dataset``, which NVTabular's workflows take.

        Raises:
            ImportError: if NVTabular is not installed.
        """
        from merlin_models.datasets.workflows import import_nvtabular

        return import_nvtabular().Dataset(self.to_pandas())


def schema_of(data: Any) -> Any | None:
    """The schema that comes with some data, if it says what the features are.

    Args:
        data: whatever a loader reads: a data set has its schema with it, a folder may have a schema.pbtxt.

    Returns:
        A schema with a column tagged CATEGORICAL, CONTINUOUS or EMBEDDING, or None.
    """
    schema = None
    if isinstance(data, (str, os.PathLike)):
        file = pathlib.Path(data) / "schema.pbtxt"
        if file.is_file():
            schema = Schema().from_proto_text(file)
    elif hasattr(getattr(data, "schema", None), "select_by_tag"):
        schema = data.schema
    tags = (Tags.CATEGORICAL, Tags.CONTINUOUS, Tags.EMBEDDING)
    if schema is None or not any(schema.select_by_tag(tag).column_names for tag in tags):
        return None
    return schema
