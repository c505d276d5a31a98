"""Where rows come from: Parquet files, Arrow tables and data sets, data frames. No TensorFlow here.

A source is divided into pieces (a row group of a file, a slice of a table), the least that is read at once.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq

from merlin_models.loader.dataset import Dataset

TABLE_PIECE_ROWS = 65_536


class TableSource:
    """Pieces of `TABLE_PIECE_ROWS` rows of an Arrow table in memory."""

    def __init__(self, table: pa.Table):
        self._table = table
        self.schema = table.schema
        self._starts = range(0, table.num_rows, TABLE_PIECE_ROWS)
        self.rows = [min(TABLE_PIECE_ROWS, table.num_rows - start) for start in self._starts]

    def check(self, names: Sequence[str]) -> None:
        """A table has one type a column: nothing to check."""

    def nbytes(self, piece: int, names: Sequence[str]) -> int:
        return self.read(piece, names).nbytes

    def read(self, piece: int, names: Sequence[str]) -> pa.Table:
        return self._table.select(list(names)).slice(self._starts[piece], self.rows[piece])


class FileSource:
    """Row groups of Parquet files; only the footers are read before the first batch.

    Args:
        paths: the files.
        reader_kwargs: arguments for `pyarrow.parquet.ParquetFile`, such as `memory_map`. Checksums of pages are verified
            where a file has them, unless `page_checksum_verification` is False.
    """

    def __init__(self, paths: Sequence[str], reader_kwargs: dict[str, Any]):
        self._paths = list(paths)
        self._reader_kwargs = {"page_checksum_verification": True, **reader_kwargs}
        self._footers = [self._read_footer(path) for path in self._paths]
        self._groups = [
            (file, group)
            for file, footer in enumerate(self._footers)
            for group in range(footer.num_row_groups)
            if footer.row_group(group).num_rows
        ]
        self.rows = [self._footers[file].row_group(group).num_rows for file, group in self._groups]
        self._first = self._groups[0][0] if self._groups else 0
        self.schema = self._footers[self._first].schema.to_arrow_schema()
        self._leaves = [_first_leaves(footer.schema.to_arrow_schema()) for footer in self._footers]

    def _read_footer(self, path: str) -> pq.FileMetaData:
        try:
            with pq.ParquetFile(path, **self._reader_kwargs) as file:
                return file.metadata
        except (pa.ArrowException, OSError) as error:
            if _is_of_the_system(error):
                raise
            raise ValueError(f"'{path}' must be a Parquet file. Received: {error}") from error

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError when a file with rows lacks one of the columns or has it in another type."""
        for file in sorted({file for file, _ in self._groups}):
            schema = self._footers[file].schema.to_arrow_schema()
            for name in names:
                found = schema.field(name).type if name in schema.names else "no such column"
                if found != self.schema.field(name).type:
                    raise ValueError(
                        f"Column '{name}' must have one type in all files: {self.schema.field(name).type} in "
                        f"'{self._paths[self._first]}'. Received: {found} in '{self._paths[file]}'."
                    )

    def nbytes(self, piece: int, names: Sequence[str]) -> int:
        file, group = self._groups[piece]
        footer = self._footers[file].row_group(group)
        values = sum(footer.column(self._leaves[file][name]).num_values for name in names)
        return 8 * (values + self.rows[piece] * len(names))

    def read(self, piece: int, names: Sequence[str]) -> pa.Table:
        file, group = self._groups[piece]
        kwargs = {**self._reader_kwargs, "metadata": self._footers[file]}
        try:
            with pq.ParquetFile(self._paths[file], **kwargs) as reader:
                return reader.read_row_group(group, columns=list(names))
        except (pa.ArrowException, OSError) as error:
            if _is_of_the_system(error):
                raise
            raise ValueError(
                f"Row group {group} of '{self._paths[file]}' must be whole, and the file the one that it was when the "
                f"loader was made. Received: {error}"
            ) from error


class DatasetSource:
    """Row groups (for other formats: fragments) of a `pyarrow.dataset.Dataset`."""

    def __init__(self, dataset: pa_dataset.Dataset):
        self.schema = dataset.schema
        try:
            whole = list(dataset.get_fragments())
        except ValueError as error:
            raise ValueError(
                "paths_or_dataset must be a pyarrow data set without filter and projection: read such a "
                f"one with `.to_table()` first. Received: {error}"
            ) from error
        fragments = [
            part
            for fragment in whole
            for part in (fragment.split_by_row_group() if _is_parquet(fragment) else [fragment])
        ]
        counted = [(fragment, _count_rows(fragment)) for fragment in fragments]
        self._fragments = [fragment for fragment, rows in counted if rows]
        self.rows = [rows for _, rows in counted if rows]

    def check(self, names: Sequence[str]) -> None:
        """Arrow casts every fragment to the data set's schema: nothing to check."""

    def nbytes(self, piece: int, names: Sequence[str]) -> int:
        fragment = self._fragments[piece]
        if _is_parquet(fragment):
            return sum(group.total_byte_size for group in fragment.row_groups)
        return 16 * len(names) * self.rows[piece]

    def read(self, piece: int, names: Sequence[str]) -> pa.Table:
        return self._fragments[piece].to_table(schema=self.schema, columns=list(names))


Source = TableSource | FileSource | DatasetSource


def open_source(data: Any, reader_kwargs: dict[str, Any] | None = None) -> Source:
    """Finds the rows behind `data`.

    Args:
        data: path, glob pattern or folder of Parquet files, or a list of them; `pyarrow.Table`;
            `pyarrow.dataset.Dataset`; `pandas.DataFrame`; a `Dataset` of this package; `merlin.io.Dataset`
            (its Parquet files are read directly, anything else that it holds is computed and kept in
            memory).
        reader_kwargs: arguments for `pyarrow.parquet.ParquetFile`; for files only.

    Raises:
        FileNotFoundError: no such file, or none that matches.
        TypeError: `data` is none of these.
        ValueError: a file is not Parquet, or `reader_kwargs` came without files.
    """
    paths = _paths_of_merlin(data) if _is_merlin(data) else data
    if isinstance(paths, (str, os.PathLike)):
        return FileSource(find_files(paths), reader_kwargs or {})
    if isinstance(paths, (list, tuple)) and all(isinstance(path, (str, os.PathLike)) for path in paths):
        if not paths:
            raise ValueError("paths_or_dataset must name at least one Parquet file. Received: an empty list.")
        return FileSource([file for path in paths for file in find_files(path)], reader_kwargs or {})
    if reader_kwargs:
        raise ValueError(f"reader_kwargs must be None where no files are read. Received: {reader_kwargs}.")
    if isinstance(data, (pa.Table, Dataset)):
        return TableSource(data.table if isinstance(data, Dataset) else data)
    if isinstance(data, pa_dataset.Dataset):
        return DatasetSource(data)
    if _is_merlin(data):
        data = data.to_ddf().compute()
    if type(data).__module__.startswith("pandas.") and type(data).__name__ == "DataFrame":
        return TableSource(pa.Table.from_pandas(data, preserve_index=False))
    raise TypeError(
        "paths_or_dataset must be a path, a list of paths, a glob pattern or folder of Parquet files, a "
        "pyarrow.Table, a pyarrow.dataset.Dataset, a pandas.DataFrame, a Dataset of this package or a "
        "merlin.io.Dataset. "
        f"Received: {type(data).__module__}.{type(data).__qualname__}."
    )


def find_files(path: str | os.PathLike) -> list[str]:
    """The Parquet files that a file name, a folder (searched with its subfolders) or a glob pattern means.

    Raises:
        FileNotFoundError: there is none.
    """
    path = os.fspath(path)
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        found = glob.glob(os.path.join(glob.escape(path), "**", "*.parquet"), recursive=True)
        found = [file for file in found if os.path.isfile(file) and os.path.basename(file)[0] not in "._"]
    else:
        found = [file for file in glob.glob(path, recursive=True) if os.path.isfile(file)]
    if not found:
        raise FileNotFoundError(
            "paths_or_dataset must be a Parquet file, a folder of *.parquet files or a glob pattern that "
            f"matches some. Received: '{path}'."
        )
    return sorted(found)


def _is_of_the_system(error: Exception) -> bool:
    """Whether it is no word of Arrow's about what a file holds: no such file, no permission, a broken disk."""
    return isinstance(error, OSError) and (error.errno is not None or isinstance(error, FileNotFoundError))


def _is_parquet(fragment: pa_dataset.Fragment) -> bool:
    return isinstance(fragment, pa_dataset.ParquetFileFragment)


def _count_rows(fragment: pa_dataset.Fragment) -> int:
    if _is_parquet(fragment):
        return sum(group.num_rows for group in fragment.row_groups)
    return fragment.count_rows()


def _is_merlin(data: Any) -> bool:
    return type(data).__module__.startswith("merlin.io") and hasattr(data, "to_ddf")


def _paths_of_merlin(data: Any) -> Any:
    """Paths of a merlin.io.Dataset that only stands for Parquet files, else the data set itself."""
    from_files = type(data.engine).__name__ == "ParquetDatasetEngine" and not data.dtypes
    return list(data.engine.paths) if from_files else data


def _first_leaves(schema: pa.Schema) -> dict[str, int]:
    """Column name -> index of its first leaf among the Parquet columns."""
    leaves, index = {}, 0
    for field in schema:
        leaves[field.name] = index
        index += _count_leaves(field.type)
    return leaves


def _count_leaves(arrow_type: pa.DataType) -> int:
    if pa.types.is_struct(arrow_type) or pa.types.is_map(arrow_type):
        parts = (
            [arrow_type.key_type, arrow_type.item_type]
            if pa.types.is_map(arrow_type)
            else [arrow_type.field(i).type for i in range(arrow_type.num_fields)]
        )
        return sum(_count_leaves(part) for part in parts)
    return _count_leaves(arrow_type.value_type) if hasattr(arrow_type, "value_type") else 1
