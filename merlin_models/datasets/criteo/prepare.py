"""From Criteo's text files to train and valid: encoded by NVTabular, with a schema."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pyarrow.parquet as pq

from merlin_models.datasets import folders
from merlin_models.datasets.criteo.columns import CATEGORICAL, CONTINUOUS, LABEL, check_id_dtype
from merlin_models.datasets.criteo.text import ROW_GROUP_ROWS, Paths, find_text, regroup, text_to_parquet
from merlin_models.datasets.folders import Splits
from merlin_models.datasets.workflows import import_nvtabular, transform_parts
from merlin_models.loader.sizes import require_integer

PART_SIZE = "64MB"  # of a partition in NVTabular's memory, where it is not a single row group
_PARTS = ("raw", "categories", "workflow", "train", "valid")


def get_criteo(
    path: Paths,
    output: str | os.PathLike | None = None,
    *,
    num_days: int | None = None,
    valid_num_days: int = 1,
    valid_fraction: float = 0.1,
    frequency_threshold: int = 15,
    id_dtype: str = "int32",
    overwrite: bool = False,
) -> Splits:
    """Prepares click logs that are on this machine for training.

    Of several files (days) the last ones become the valid part, of a single file its last rows. Ids, means and
    deviations come from the train part alone; :func:`criteo_workflow` says how values are encoded. A second call with
    the same arguments finds the first one's result.

    Args:
        path: text files in Criteo's format: a file, a folder, or a list of both, as in :func:`find_text`.
        output: a folder, is made where it is missing. It gets train/, valid/ (Parquet files and schema.pbtxt), raw/ (the
            text as Parquet; not needed again), categories/ and workflow/. None: the folder "prepared" beside the
            (first) file, or in the folder that ``path`` is.
        num_days: number of files to take, from the first. None: all.
        valid_num_days: how many of them, the last ones, are the valid part; counts where there are several.
        valid_fraction: share of the rows, the last ones, that are; counts where there is a single file. Above 0 and
            below 1.
        frequency_threshold: ids that occur less often in train share one id.
        id_dtype: "int32" or "int64".
        overwrite: whether to replace what another call, with other arguments or files, left in ``output``.

    Returns:
        The folders: ``train, valid = get_criteo(...)``; the schema is ``.schema``.

    Raises:
        FileExistsError: if ``output`` has other data.
        FileNotFoundError: if there are no text files.
        ImportError: if NVTabular is not installed.
        ValueError: if an argument is unfit, or a file is not of the format.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.datasets.criteo import get_criteo
        >>> train, valid = get_criteo("logs", num_days=3)  # logs/day_0, day_1.gz, ...  # doctest: +SKIP
        >>> loader = ml.Loader(train, batch_size=65_536)  # doctest: +SKIP
    """
    files = _take(find_text(path), num_days)
    frequency_threshold = require_integer("frequency_threshold", frequency_threshold, 0)
    check_id_dtype(id_dtype)
    options: dict[str, Any] = {
        "data": "criteo",
        "files": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
        "frequency_threshold": frequency_threshold,
        "id_dtype": str(id_dtype),
    }
    if len(files) > 1:
        options["valid_num_days"] = require_integer("valid_num_days", valid_num_days, 1)
        if valid_num_days >= len(files):
            raise ValueError(f"valid_num_days must be less than the {len(files)} files. Received: {valid_num_days}.")
    else:
        options["valid_fraction"] = folders.check_fraction(valid_fraction)
    folder = _output(path, files) if output is None else pathlib.Path(output)
    folder = folder.resolve()
    import_nvtabular()  # before hours of reading
    if folders.claim(folder, options, _PARTS, overwrite):
        raw = text_to_parquet(files, folder / "raw")
        if len(raw) > 1:
            parts = {"train": raw[:-valid_num_days], "valid": raw[-valid_num_days:]}
        else:
            parts = _split(raw[0], valid_fraction)
        _check_ids(parts["train"])
        transform_parts(criteo_workflow(folder, frequency_threshold, id_dtype), parts, folder, PART_SIZE)
        folders.finish(folder, options, _PARTS)
    return folders.splits_of(folder)


def criteo_workflow(folder: str | os.PathLike, frequency_threshold: int = 15, id_dtype: str = "int32") -> Any:
    """The NVTabular workflow for the columns of :func:`read_text`, not yet fitted.

    - C1 to C26 become ids: 0 stays for padding, 1 is for missing values, 2 for those that are rare in train or not in
      it, and the rest follows by frequency.
    - I1 to I13 become float32: 0 where missing or negative, then log(1 + x), then mean 0 and deviation 1 in train.
    - The label stays as it is. Tags: CATEGORICAL, CONTINUOUS, and TARGET with BINARY_CLASSIFICATION.

    Args:
        folder: where fitting writes the values of the ids, in categories/.
        frequency_threshold: an id must occur as often to get one of its own.
        id_dtype: "int32" or "int64".

    Returns:
        An ``nvtabular.Workflow``.

    Raises:
        ImportError: if NVTabular is not installed.

    Example:
        >>> import nvtabular  # doctest: +SKIP
        >>> from merlin_models.datasets.criteo import criteo_workflow, text_to_parquet
        >>> files = text_to_parquet("logs", "raw")  # doctest: +SKIP
        >>> data = nvtabular.Dataset([str(file) for file in files])  # doctest: +SKIP
        >>> workflow = criteo_workflow("encoded", frequency_threshold=100).fit(data)  # doctest: +SKIP
    """
    nvt = import_nvtabular()
    from merlin.schema import Tags

    ops = nvt.ops
    ids = list(CATEGORICAL) >> ops.Categorify(
        freq_threshold=require_integer("frequency_threshold", frequency_threshold, 0),
        out_path=str(folder),
        dtype=check_id_dtype(id_dtype).name,
    )
    numbers = list(CONTINUOUS) >> ops.FillMissing(0) >> ops.Clip(min_value=0) >> ops.LogOp()
    numbers = numbers >> ops.Normalize(out_dtype="float32")
    label = [LABEL] >> ops.AddTags([Tags.BINARY_CLASSIFICATION, Tags.TARGET])
    return nvt.Workflow(label + numbers + ids)


def _take(files: list[pathlib.Path], num_days: int | None) -> list[pathlib.Path]:
    if num_days is None:
        return files
    if require_integer("num_days", num_days, 1) > len(files):
        raise ValueError(f"num_days must be at most the number of files, {len(files)}. Received: {num_days}.")
    return files[:num_days]


def _output(path: Paths, files: list[pathlib.Path]) -> pathlib.Path:
    is_folder = isinstance(path, (str, os.PathLike)) and os.path.isdir(path)
    return (pathlib.Path(path) if is_folder else files[0].parent) / "prepared"


def _split(file: pathlib.Path, valid_fraction: float) -> dict[str, list[pathlib.Path]]:
    """Copies the last rows of a Parquet file into a second one, the others into a first."""
    with pq.ParquetFile(file) as source:
        rows = source.metadata.num_rows
        num_valid = round(rows * valid_fraction)
        if not 0 < num_valid < rows:
            raise ValueError(
                f"valid_fraction must leave a row to both parts. Received: {valid_fraction} of {rows} rows."
            )
        targets = {part: file.with_name(f"{file.stem}.{part}.parquet") for part in ("train", "valid")}
        with (
            pq.ParquetWriter(targets["train"], source.schema_arrow) as train,
            pq.ParquetWriter(targets["valid"], source.schema_arrow) as valid,
        ):
            left = rows - num_valid
            for table in regroup(source.iter_batches(), ROW_GROUP_ROWS):
                if left:
                    train.write_table(table.slice(0, left))
                if table.num_rows > left:
                    valid.write_table(table.slice(left))
                left = max(0, left - table.num_rows)
    file.unlink()
    return {part: [target] for part, target in targets.items()}


def _check_ids(files: list[pathlib.Path]) -> None:
    """Raises ValueError if a column of ids is missing in all rows, which NVTabular fails at."""
    missing = set(CATEGORICAL)
    for file in files:
        footer = pq.read_metadata(file)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            missing -= {column.path_in_schema for column in columns if column.statistics.null_count < group.num_rows}
    if missing:
        raise ValueError(
            f"Each of C1 to C26 must have a value in some row of train. Received: none in {sorted(missing)}."
        )
