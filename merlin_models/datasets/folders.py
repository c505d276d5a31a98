"""Folders of prepared data: what is in them, from which options, and whether it is complete."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from merlin_models._files import write_text
from merlin_models.schema import Schema

RECORD = "prepared.json"


class Splits(NamedTuple):
    """Two folders of Parquet files, each with its schema.pbtxt. Unpacks as ``train, valid``.

    Attributes:
        train: the folder of the rows to train on.
        valid: that of the others.

    Example:
        >>> import pathlib, merlin_models.tf as ml
        >>> from merlin_models.datasets import Splits
        >>> ml.Schema([ml.ColumnSchema.create_categorical("movieId", 9)]).save("train")
        PosixPath('train/schema.pbtxt')
        >>> train, valid = splits = Splits(pathlib.Path("train"), pathlib.Path("valid"))
        >>> splits.schema.column_names
        ['movieId']
    """

    train: pathlib.Path
    valid: pathlib.Path

    @property
    def schema(self) -> Schema:
        """Of the train part, read from its file."""
        return Schema.load(self.train)


def splits_of(folder: pathlib.Path) -> Splits:
    return Splits(folder / "train", folder / "valid")


def check_fraction(valid_fraction: float) -> float:
    """A float above 0 and below 1; ValueError for others."""
    if not 0 < valid_fraction < 1:
        raise ValueError(f"valid_fraction must be above 0 and below 1. Received: {valid_fraction!r}.")
    return float(valid_fraction)


def claim(folder: pathlib.Path, options: Mapping[str, Any], parts: Sequence[str], overwrite: bool) -> bool:
    """Makes a folder ready to be written into, unless it holds just that already.

    Args:
        folder: is made where it is missing.
        options: JSON values that decide what will be in it.
        parts: names of the subfolders that will be written; those of a run that stopped halfway are removed.
        overwrite: whether to remove complete ones too.

    Returns:
        False if the folder is complete and of the same options, so there is nothing to do.

    Raises:
        FileExistsError: if there is other data in the way.
    """
    options = json.loads(json.dumps(options))
    record = folder / RECORD
    if record.is_file():
        found = json.loads(record.read_text())
        if found["complete"] and not overwrite:
            if found["options"] == options:
                return False
            differing = sorted(
                name
                for name in {*options, *found["options"]}
                if options.get(name, ...) != found["options"].get(name, ...)
            )
            raise FileExistsError(
                f"'{folder}' must be empty or hold data of the same options, or overwrite must be True. Received: other "
                f"values of {', '.join(differing)}."
            )
        for part in found["parts"]:
            shutil.rmtree(folder / part, ignore_errors=True)
    foreign = [part for part in parts if (folder / part).exists()]
    if foreign:
        raise FileExistsError(f"'{folder}' must not have {', '.join(parts)} of other origin. Received: {foreign}.")
    folder.mkdir(parents=True, exist_ok=True)
    _write(record, options, parts, complete=False)
    return True


def finish(folder: pathlib.Path, options: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Records that all parts are written."""
    _write(folder / RECORD, options, parts, complete=True)


def _write(record: pathlib.Path, options: Mapping[str, Any], parts: Sequence[str], complete: bool) -> None:
    content = {"complete": complete, "parts": list(parts), "options": dict(options)}
    write_text(record, json.dumps(content, indent=1) + "\n")
