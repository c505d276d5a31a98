"""Booking.com's trips: sequences of cities, from the challenge's files to encoded Parquet.

The files come by hand from https://github.com/bookingcom/ml-dataset-mdt.

Reference: D. Goldenberg et al., Booking.com Multi-Destination Trips Dataset, SIGIR 2021.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from merlin_models.datasets import folders
from merlin_models.datasets.download import require_files
from merlin_models.datasets.folders import Splits
from merlin_models.datasets.workflows import import_nvtabular, transform_parts, workflow_option

_FILES = ("train_set.csv", "test_set.csv", "ground_truth.csv")
_PARTS = ("raw", "categories", "workflow", "train", "valid")
_SOURCE = "They are in https://github.com/bookingcom/ml-dataset-mdt: copy them there."
_COLUMNS = ["user_id", "checkin", "checkout", "city_id", "device_class", "booker_country", "hotel_country", "utrip_id"]
_OF_A_TRIP = ("utrip_id", "user_id", "device_class")
_LISTS = ("booker_country", "hotel_country", "month", "is_weekend", "weekday_checkin", "weekday_checkout", "city_id")


def get_booking(
    path: str | os.PathLike,
    overwrite: bool = False,
    transformed_name: str = "transformed",
    nvt_workflow: Any | None = None,
) -> Splits:
    """Prepares Booking.com's trips for training: a row a trip, with lists of its stays in their order.

    The valid part are the trips of the challenge's test set, their last city from the ground truth.

    Args:
        path: folder of train_set.csv, test_set.csv and ground_truth.csv.
        overwrite: whether to replace what another call left in the output.
        transformed_name: of the folder in ``path`` that is written to: train/, valid/ (Parquet files and schema.pbtxt), raw/
            (the trips before they are encoded), categories/ and workflow/.
        nvt_workflow: an ``nvtabular.Workflow`` in the place of :func:`booking_workflow`. Its result does not count as that of
            a later call.

    Returns:
        The folders: ``train, valid = get_booking(...)``; the schema is ``.schema``.

    Raises:
        FileExistsError: if there are other data in the way.
        FileNotFoundError: if a file is missing; the message says where it comes from.
        ImportError: if NVTabular is not installed.
        ValueError: if a trip of the test set has no ground truth.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.datasets import get_booking
        >>> train, valid = get_booking("booking")  # the folder with its three files  # doctest: +SKIP
        >>> loader = ml.Loader(train, batch_size=4096)  # doctest: +SKIP
    """
    import_nvtabular()
    path = pathlib.Path(path)
    train_file, test_file, truth_file = require_files(path, _FILES, _SOURCE)
    options = {"data": "booking", "workflow": workflow_option(nvt_workflow)}
    folder = (path / transformed_name).resolve()
    if folders.claim(folder, options, _PARTS, overwrite):
        import pandas as pd

        stays = {"train": pd.read_csv(train_file, usecols=_COLUMNS), "valid": _with_truth(test_file, truth_file)}
        (folder / "raw").mkdir()
        raw = {}
        for part, frame in stays.items():
            raw[part] = [folder / "raw" / f"{part}.parquet"]
            pq.write_table(to_trips(frame), raw[part][0])
        transform_parts(nvt_workflow or booking_workflow(folder), raw, folder)
        folders.finish(folder, options, _PARTS)
    return folders.splits_of(folder)


def booking_workflow(folder: str | os.PathLike) -> Any:
    """The NVTabular workflow for trips, not yet fitted: all but utrip_id become ids, tagged by what they are.

    0 stays for padding, 1 is for missing values, 2 for those that train does not have, the rest follows by frequency.
    session_id is the trip's number.

    Args:
        folder: where fitting writes the values of the ids, in categories/.

    Returns:
        An ``nvtabular.Workflow``.

    Raises:
        ImportError: if NVTabular is not installed.

    Example:
        >>> from merlin_models.datasets.booking import booking_workflow, get_booking
        >>> train, valid = get_booking("raw", nvt_workflow=booking_workflow("categories"))  # doctest: +SKIP
    """
    nvt = import_nvtabular()
    from merlin.schema import Tags

    ops = nvt.ops

    def encode(names: list[str], *tags: Tags) -> Any:
        return names >> ops.Categorify(out_path=str(folder)) >> ops.AddTags([Tags.CATEGORICAL, *tags])

    columns = nvt.ColumnSelector(["utrip_id"])
    columns += encode(["user_id"], Tags.USER, Tags.USER_ID)
    columns += encode(["session_id"], Tags.SESSION, Tags.SESSION_ID)
    columns += encode(["device_class"], Tags.SESSION)
    columns += encode(["city_id"], Tags.ITEM, Tags.ITEM_ID, Tags.SEQUENCE)
    columns += encode(["hotel_country"], Tags.ITEM, Tags.SEQUENCE)
    others = [name for name in _LISTS if name not in ("city_id", "hotel_country")]
    return nvt.Workflow(columns + encode(others, Tags.SEQUENCE))


def to_trips(stays: Any) -> pa.Table:
    """Stays (a data frame, a row a stay) -> trips, a row a trip, by the day of arrival."""
    import pandas as pd

    checkin, checkout = (pd.to_datetime(stays[name]) for name in ("checkin", "checkout"))
    stays = stays.assign(
        checkin=checkin,
        month=checkin.dt.month,
        weekday_checkin=checkin.dt.weekday,
        weekday_checkout=checkout.dt.weekday,
        is_weekend=(checkin.dt.weekday >= 5).astype("int64"),
    )
    stays = stays.sort_values(["utrip_id", "checkin"], kind="stable").reset_index(drop=True)
    first = np.flatnonzero(np.append(True, stays["utrip_id"].to_numpy()[1:] != stays["utrip_id"].to_numpy()[:-1]))
    offsets = pa.array(np.append(first, len(stays)), pa.int32())
    columns = {name: pa.array(stays[name].iloc[first]) for name in _OF_A_TRIP}
    columns["session_id"] = columns["utrip_id"]
    for name in _LISTS:
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(stays[name]))
    return pa.table(columns)


def _with_truth(test_file: pathlib.Path, truth_file: pathlib.Path) -> Any:
    """The test set with the last city of each trip, which it leaves out (as 0), from the ground truth."""
    import pandas as pd

    stays = pd.read_csv(test_file, usecols=_COLUMNS)
    truth = pd.read_csv(truth_file).set_index("utrip_id")
    hidden = stays["city_id"] == 0
    trips = stays.loc[hidden, "utrip_id"]
    unknown = sorted(set(trips) - set(truth.index))
    if unknown:
        raise ValueError(f"'{truth_file}' must have all trips of the test set. Received: no {unknown[0]}.")
    for name in ("city_id", "hotel_country"):
        if name in truth:
            stays.loc[hidden, name] = trips.map(truth[name])
    return stays
