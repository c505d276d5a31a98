"""Dressipi's sessions of the RecSys Challenge 2022: views of clothes and what was bought, encoded as Parquet.

The files come by hand from https://www.dressipi-recsys2022.com (dressipi_recsys2022.zip).
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from merlin_models.datasets import folders
from merlin_models.datasets.download import require_files
from merlin_models.datasets.folders import Splits
from merlin_models.datasets.synthetic.schemas import DRESSIPI_FEATURES
from merlin_models.datasets.workflows import import_nvtabular, transform_parts, workflow_option
from merlin_models.loader.sizes import require_integer

_FILES = ("train_sessions.csv", "train_purchases.csv", "item_features.csv")
_PARTS = ("raw", "categories", "workflow", "train", "valid")
_SOURCE = "They are in dressipi_recsys2022.zip, which https://www.dressipi-recsys2022.com gives: unpack it there."
NO_FEATURE = -1
_FEATURES = [f"f_{number}" for number in DRESSIPI_FEATURES]


def get_dressipi2022(
    input_path: str | os.PathLike,
    overwrite: bool = False,
    transformed_name: str = "transformed",
    nvt_workflow: Any | None = None,
    *,
    valid_days: int = 30,
) -> Splits:
    """Prepares Dressipi's sessions for training: a row a viewed item, with what the session bought in the end.

    Sessions that begin in the last days are the valid part, whole.

    Args:
        input_path: folder of train_sessions.csv, train_purchases.csv and item_features.csv.
        overwrite: whether to replace what another call, with other arguments, left in the output.
        transformed_name: of the folder in ``input_path`` that is written to: train/, valid/ (Parquet files and schema.pbtxt),
            raw/ (the rows before they are encoded), categories/ and workflow/.
        nvt_workflow: an ``nvtabular.Workflow`` in the place of :func:`dressipi_workflow`. Its result does not count as that
            of a later call.
        valid_days: how many days the valid part has.

    Returns:
        The folders: ``train, valid = get_dressipi2022(...)``; the schema is ``.schema``.

    Raises:
        FileExistsError: if there are other data in the way.
        FileNotFoundError: if a file is missing; the message says where it comes from.
        ImportError: if NVTabular is not installed.
        ValueError: if valid_days leaves no session to a part.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.datasets import get_dressipi2022
        >>> train, valid = get_dressipi2022("dressipi")  # the folder with its three files  # doctest: +SKIP
        >>> loader = ml.Loader(train, batch_size=4096)  # doctest: +SKIP
    """
    valid_days = require_integer("valid_days", valid_days, 1)
    import_nvtabular()
    path = pathlib.Path(input_path)
    files = require_files(path, _FILES, _SOURCE)
    options = {"data": "dressipi2022", "valid_days": valid_days, "workflow": workflow_option(nvt_workflow)}
    folder = (path / transformed_name).resolve()
    if folders.claim(folder, options, _PARTS, overwrite):
        views = read_views(*files)
        begins = views.groupby("session_id")["day"].transform("min")
        is_valid = begins > views["day"].max() - valid_days
        if is_valid.all() or not is_valid.any():
            raise ValueError(
                f"valid_days must leave a session to both parts. Received: {valid_days} of {views['day'].max() + 1}."
            )
        (folder / "raw").mkdir()
        raw = {}
        for part, chosen in (("train", ~is_valid), ("valid", is_valid)):
            raw[part] = [folder / "raw" / f"{part}.parquet"]
            views[chosen].to_parquet(raw[part][0], index=False, row_group_size=500_000)
        transform_parts(nvt_workflow or dressipi_workflow(folder), raw, folder)
        folders.finish(folder, options, _PARTS)
    return folders.splits_of(folder)


def dressipi_workflow(folder: str | os.PathLike) -> Any:
    """The NVTabular workflow for the raw columns that :func:`get_dressipi2022` writes, not yet fitted.

    All but date and timestamp become ids: 0 stays for padding, 1 is for missing values, 2 for those that train does not have,
    the rest follows by frequency; that an item has no such feature counts as a value. Viewed and bought items have one
    numbering.

    Args:
        folder: where fitting writes the values of the ids, in categories/.

    Returns:
        An ``nvtabular.Workflow``.

    Raises:
        ImportError: if NVTabular is not installed.

    Example:
        >>> from merlin_models.datasets.dressipi import dressipi_workflow, get_dressipi2022
        >>> train, valid = get_dressipi2022("raw", nvt_workflow=dressipi_workflow("categories"))  # doctest: +SKIP
    """
    nvt = import_nvtabular()
    from merlin.schema import Tags

    ops = nvt.ops

    def encode(columns: list, *tags: Tags) -> Any:
        return columns >> ops.Categorify(out_path=str(folder)) >> ops.AddTags([Tags.CATEGORICAL, *tags])

    both = [["item_id", "purchase_id"]] >> ops.Categorify(out_path=str(folder), encode_type="joint")
    both = both >> ops.AddTags([Tags.CATEGORICAL])
    columns = encode(["session_id"], Tags.SESSION, Tags.SESSION_ID) + nvt.ColumnSelector(["date", "timestamp"])
    columns += both["purchase_id"] >> ops.AddTags([Tags.SESSION])
    columns += both["item_id"] >> ops.AddTags([Tags.ITEM, Tags.ITEM_ID])
    return nvt.Workflow(columns + encode(["day"]) + encode(_FEATURES, Tags.ITEM))


def read_views(sessions: str | os.PathLike, purchases: str | os.PathLike, item_features: str | os.PathLike) -> Any:
    """The three files as one data frame, by session and time.

    Returns:
        Columns session_id, date (text), timestamp (milliseconds), day (from the first), purchase_id, item_id, f_3 to f_73
        (values of the item's features, -1 where it has none; of several the first).
    """
    import pandas as pd

    views = pd.read_csv(sessions)
    bought = pd.read_csv(purchases, usecols=["session_id", "item_id"]).rename(columns={"item_id": "purchase_id"})
    features = pd.read_csv(item_features)
    features = features[features["feature_category_id"].isin(DRESSIPI_FEATURES)]
    features = features.drop_duplicates(["item_id", "feature_category_id"])
    wide = features.pivot(index="item_id", columns="feature_category_id", values="feature_value_id")
    wide = wide.reindex(columns=list(DRESSIPI_FEATURES)).set_axis(_FEATURES, axis=1)
    times = pd.to_datetime(views["date"])
    views["timestamp"] = times.astype("int64") // 1_000_000
    views["day"] = (times.dt.normalize() - times.min().normalize()).dt.days
    views = views.merge(bought, on="session_id", how="left", validate="many_to_one")
    views = views.merge(wide, left_on="item_id", right_index=True, how="left")
    views[_FEATURES] = views[_FEATURES].fillna(NO_FEATURE).astype("int64")
    views = views.sort_values(["session_id", "timestamp"], kind="stable").reset_index(drop=True)
    return views[["session_id", "date", "timestamp", "day", "purchase_id", "item_id", *_FEATURES]]
