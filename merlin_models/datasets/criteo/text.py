"""Criteo's text files: found, read in batches, and written as Parquet."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from merlin_models.datasets.criteo.columns import CATEGORICAL, COLUMNS, CONTINUOUS, LABEL
from merlin_models.loader.sizes import require_integer

Paths = str | os.PathLike | Sequence[str | os.PathLike]
HEX_DIGITS = 8
BLOCK_BYTES = 4 << 20
ROW_GROUP_ROWS = 131_072

RAW_SCHEMA = pa.schema(
    [pa.field(LABEL, pa.int8(), nullable=False), *((name, pa.int64()) for name in (*CONTINUOUS, *CATEGORICAL))]
)
_IN_A_FOLDER = re.compile(r"(day_\d+|.*\.tsv)(\.gz)?")
_DIGIT = np.full(256, 255, np.uint8)  # the value of a character that is a hexadecimal digit
for _digits in (b"0123456789abcdef", b"0123456789ABCDEF"):
    _DIGIT[list(_digits)] = np.arange(16)


def find_text(paths: Paths) -> list[pathlib.Path]:
    """The text files that are meant.

    Args:
        paths: a file of any name, a folder, or a list of both. Of a folder, the files called ``day_<number>`` or
            ``*.tsv``, each with or without ``.gz``; by name, numbers by their value; subfolders are not searched.

    Returns:
        The paths of the files, in their order.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file is there twice, plain and compressed.

    Example:
        >>> import pathlib
        >>> from merlin_models.datasets.criteo import find_text
        >>> _ = pathlib.Path("day_0").write_text("")
        >>> [path.name for path in find_text(".")]
        ['day_0']
    """
    found = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = pathlib.Path(path)
        if path.is_dir():
            files = [file for file in path.iterdir() if file.is_file() and _IN_A_FOLDER.fullmatch(file.name)]
            found += sorted(files, key=lambda file: _by_number(file.name))
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"path must be a file or a folder. Received: '{path}', which does not exist.")
    if not found:
        raise FileNotFoundError(
            f"path must have files called day_<number> or *.tsv, also with .gz. Received: '{paths}', which has none."
        )
    plain = [str(path).removesuffix(".gz") for path in found]
    twice = sorted({path for path in plain if plain.count(path) > 1})
    if twice:
        raise ValueError(f"path must have each file once, plain or compressed. Received twice: {twice}.")
    return found


def read_text(path: str | os.PathLike, block_bytes: int = BLOCK_BYTES) -> Iterator[pa.RecordBatch]:
    """Reads a file in Criteo's format, a part at a time.

    A line has 40 values separated by tabs, without a header: the label 0 or 1, 13 integers, 26 hexadecimal strings of
    at most 8 digits. All but the label may be missing, that is empty. Blank lines are skipped.

    Args:
        path: text, or text compressed by gzip if its name ends in .gz.
        block_bytes: of text that become a batch.

    Yields:
        Batches of the columns :data:`COLUMNS`: label int8, and int64 with nulls; the hexadecimal strings by their
        values.

    Raises:
        ValueError: if the file has no rows, or a line is not of that format; the message has the number of its row.

    Example:
        >>> import os, tempfile
        >>> from merlin_models.datasets import criteo
        >>> path = os.path.join(tempfile.mkdtemp(), "day_0")
        >>> with open(path, "w") as file:
        ...     _ = file.write("\\t".join(["1", "5", *[""] * 12, "ff", *[""] * 25]) + "\\n")
        >>> batch = next(criteo.read_text(path))
        >>> batch.num_rows, batch["I1"].to_pylist(), batch["I2"].to_pylist(), batch["C1"].to_pylist()
        (1, [5], [None], [255])
    """
    path = pathlib.Path(path)
    block_bytes = require_integer("block_bytes", block_bytes, 1)
    rows = 0
    for batch in _parse(path, block_bytes):
        yield _decode(batch, path, rows)
        rows += batch.num_rows
    if not rows:
        raise ValueError(f"'{path}' must have at least one row. Received: an empty file.")


def text_to_parquet(
    paths: Paths, folder: str | os.PathLike, row_group_rows: int = ROW_GROUP_ROWS
) -> list[pathlib.Path]:
    """Writes each text file as a Parquet file of the same name, never more than a row group in memory.

    Args:
        paths: as in :func:`find_text`.
        folder: is made where it is missing; files in it of the same names are replaced.
        row_group_rows: rows of a row group.

    Returns:
        The Parquet files, in the order of the text files; their columns are those of :func:`read_text`.

    Raises:
        FileNotFoundError, ValueError: as :func:`find_text` and :func:`read_text` do; or two files have one name.

    Example:
        >>> import pathlib
        >>> from merlin_models.datasets.criteo import text_to_parquet
        >>> _ = pathlib.Path("day_0").write_text(chr(9).join(["1", *["5"] * 13, *["0a1b2c3d"] * 26]) + chr(10))  # tabs
        >>> [file.name for file in text_to_parquet("day_0", "raw")]
        ['day_0.parquet']
    """
    files = find_text(paths)
    row_group_rows = require_integer("row_group_rows", row_group_rows, 1)
    targets = [pathlib.Path(folder) / (_stem(file) + ".parquet") for file in files]
    if len(set(targets)) < len(targets):
        raise ValueError(f"paths must be files of different names. Received: {[file.name for file in files]}.")
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    for file, target in zip(files, targets, strict=True):
        with pq.ParquetWriter(target, RAW_SCHEMA) as writer:
            for table in regroup(read_text(file), row_group_rows):
                writer.write_table(table)
    return targets


def regroup(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of so many rows; the last may have fewer."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows)
            waiting = table.slice(rows).to_batches()
            count -= rows
    if count:
        yield pa.Table.from_batches(waiting)


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _stem(file: pathlib.Path) -> str:
    name = file.name.removesuffix(".gz")
    return name.removesuffix(".tsv").removesuffix(".txt")


def _parse(path: pathlib.Path, block_bytes: int) -> Iterator[pa.RecordBatch]:
    wrong: list[pa_csv.InvalidRow] = []

    def stop(row: pa_csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    types = {LABEL: pa.int8(), **dict.fromkeys(CONTINUOUS, pa.int64()), **dict.fromkeys(CATEGORICAL, pa.string())}
    try:
        with (
            pa.input_stream(path, compression="gzip" if path.suffix == ".gz" else None) as stream,
            # One thread, which lets Arrow number the rows that it complains about.
            pa_csv.open_csv(
                stream,
                pa_csv.ReadOptions(column_names=list(COLUMNS), block_size=block_bytes, use_threads=False),
                pa_csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=stop),
                pa_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
            ) as reader,
        ):
            yield from reader
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            return
        if wrong:
            raise ValueError(
                f"'{path}' must have {len(COLUMNS)} values a line, separated by tabs: {LABEL}, I1 to I13, C1 to C26. "
                f"Received: {wrong[0].actual_columns} in row {wrong[0].number}."
            ) from error
        raise ValueError(f"'{path}' must be in Criteo's format. Received: {_in_words(str(error))}") from error
    except OSError as error:
        if path.suffix != ".gz":
            raise
        raise ValueError(f"'{path}' must be complete and compressed by gzip. Received: {error}") from error


def _in_words(message: str) -> str:
    """Arrow's message with the column's name in the place of its number."""
    return re.sub(r"In CSV column #(\d+)", lambda found: f"column {COLUMNS[int(found[1])]}", message)


def _decode(batch: pa.RecordBatch, path: pathlib.Path, rows_before: int) -> pa.RecordBatch:
    labels = batch.column(0)
    good = pc.fill_null(pc.is_in(labels, value_set=pa.array([0, 1], pa.int8())), False)
    if not pc.all(good).as_py():
        row = pc.index(good, False).as_py()
        raise ValueError(f"{_place(path, LABEL, rows_before + row)} must be 0 or 1. Received: {labels[row].as_py()}.")
    columns = [labels, *batch.columns[1 : 1 + len(CONTINUOUS)]]
    for name in CATEGORICAL:
        texts = batch.column(name)
        values, wrong = _from_hex(texts)
        if wrong is not None:
            raise ValueError(
                f"{_place(path, name, rows_before + wrong)} must be a hexadecimal number of at most {HEX_DIGITS} "
                f"digits, or empty. Received: {texts[wrong].as_py()!r}."
            )
        columns.append(values)
    return pa.RecordBatch.from_arrays(columns, schema=RAW_SCHEMA)


def _place(path: pathlib.Path, column: str, row: int) -> str:
    return f"{column} in row {row + 1} of '{path}'"


def _from_hex(texts: pa.StringArray) -> tuple[pa.Array | None, int | None]:
    """(int64 values with the nulls of `texts`, None), or (None, the first row that is no such number)."""
    present = pc.is_valid(texts).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(present)
    too_long = pc.fill_null(pc.greater(pc.binary_length(texts), HEX_DIGITS), False).to_numpy(zero_copy_only=False)
    if too_long.any():
        return None, int(np.argmax(too_long))
    values = np.zeros(len(texts), np.int64)
    if len(rows):
        padded = pc.ascii_lpad(texts.drop_null(), HEX_DIGITS, "0").cast(pa.binary()).cast(pa.binary(HEX_DIGITS))
        digits = _DIGIT[np.frombuffer(padded.buffers()[1], np.uint8, len(rows) * HEX_DIGITS)].reshape(-1, HEX_DIGITS)
        wrong = (digits == 255).any(axis=1)
        if wrong.any():
            return None, int(rows[np.argmax(wrong)])
        values[rows] = (digits[:, 0::2] << 4 | digits[:, 1::2]).view(">u4")[:, 0]
    return pa.array(values, mask=~present), None
