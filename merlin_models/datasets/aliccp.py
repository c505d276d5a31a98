"""Ali-CCP: clicks and conversions of Taobao's recommender, from their text files to encoded Parquet.

The files come by hand from https://tianchi.aliyun.com/dataset/408 (sample_train.tar.gz, sample_test.tar.gz). A line of a
skeleton is ``sample,click,conversion,index of the common features,number of features,features``, one of the common features
``index,number of features,features``; a feature is ``field \\x02 id \\x03 value``, and \\x01 stands between features.

Reference: X. Ma et al., Entire Space Multi-Task Model, SIGIR 2018.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from merlin_models.datasets import folders
from merlin_models.datasets.download import require_files
from merlin_models.datasets.folders import Splits
from merlin_models.datasets.synthetic.schemas import named_schema
from merlin_models.datasets.workflows import import_nvtabular, transform_parts, workflow_option
from merlin_models.schema import Tags

_PARTS = ("raw", "categories", "workflow", "train", "valid")
_SOURCE = (
    "They are in sample_train.tar.gz and sample_test.tar.gz of Ali-CCP, which https://tianchi.aliyun.com/dataset/408 gives "
    "to those who sign in: unpack both there."
)
# Field -> column; those of the user and the ones that all samples of a user have are in the common features.
FIELDS = {
    **{"101": "user_id", "109_14": "user_categories", "110_14": "user_shops", "127_14": "user_brands"},
    **{
        "150_14": "user_intentions",
        "121": "user_profile",
        "122": "user_group",
        "124": "user_gender",
        "125": "user_age",
    },
    **{"126": "user_consumption_1", "127": "user_consumption_2", "128": "user_is_occupied", "129": "user_geography"},
    **{"205": "item_id", "206": "item_category", "207": "item_shop", "210": "item_intention", "216": "item_brand"},
    **{"508": "user_item_categories", "509": "user_item_shops", "702": "user_item_brands"},
    **{"853": "user_item_intentions", "301": "position"},
}
TARGETS = ("click", "conversion")
BLOCK_BYTES = 16 << 20
PART_SIZE = "128MB"


def get_aliccp(
    path: str | os.PathLike,
    overwrite: bool = False,
    transformed_name: str = "transformed",
    nvt_workflow: Any | None = None,
) -> Splits:
    """Prepares Ali-CCP for training; its test part becomes the valid part.

    Args:
        path: folder of sample_skeleton_train.csv, common_features_train.csv, and the same of test, or with folders train and
            test that have them.
        overwrite: whether to replace what another call left in the output.
        transformed_name: of the folder in ``path`` that is written to: train/, valid/ (Parquet files and schema.pbtxt), raw/
            (the columns before they are encoded, as Parquet), categories/ and workflow/.
        nvt_workflow: an ``nvtabular.Workflow`` in the place of :func:`aliccp_workflow`. Its result does not count as that of
            a later call.

    Returns:
        The folders: ``train, valid = get_aliccp(...)``; the schema is ``.schema``.

    Raises:
        FileExistsError: if there are other data in the way.
        FileNotFoundError: if a file is missing; the message says where it comes from.
        ImportError: if NVTabular is not installed.
        ValueError: if a file is not of the format.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.datasets import get_aliccp
        >>> train, valid = get_aliccp("aliccp")  # the folder with its four files  # doctest: +SKIP
        >>> loader = ml.Loader(train, batch_size=4096)  # doctest: +SKIP
    """
    import_nvtabular()  # before hours of reading
    path = pathlib.Path(path)
    files = {part: _find(path, raw_part) for part, raw_part in (("train", "train"), ("valid", "test"))}
    options = {"data": "aliccp", "workflow": workflow_option(nvt_workflow)}
    folder = (path / transformed_name).resolve()
    if folders.claim(folder, options, _PARTS, overwrite):
        raw = {}
        for part, (skeleton, common) in files.items():
            raw[part] = [convert_aliccp(skeleton, common, folder / "raw" / f"{part}.parquet")]
        transform_parts(nvt_workflow or aliccp_workflow(folder), raw, folder, PART_SIZE)
        folders.finish(folder, options, _PARTS)
    return folders.splits_of(folder)


def aliccp_workflow(folder: str | os.PathLike) -> Any:
    """The NVTabular workflow for the raw columns that :func:`get_aliccp` writes, not yet fitted.

    All columns become int32 ids: 0 stays for padding, 2 is for what train does not have, the rest follows by frequency.
    ``TE_user_id_click`` and ``TE_item_id_click`` are the shares of clicks of an id in other folds of train, smoothed, then
    mean 0 and deviation 1. The targets click and conversion stay as they are.

    Args:
        folder: where fitting writes the values of the ids, in categories/.

    Returns:
        An ``nvtabular.Workflow``.

    Raises:
        ImportError: if NVTabular is not installed.

    Example:
        >>> from merlin_models.datasets.aliccp import aliccp_workflow, get_aliccp
        >>> train, valid = get_aliccp("raw", nvt_workflow=aliccp_workflow("categories"))  # doctest: +SKIP
    """
    nvt = import_nvtabular()
    import merlin.schema

    ops = nvt.ops
    schema = named_schema("aliccp")
    features = ["click", "conversion"] >> ops.AddTags(
        [merlin.schema.Tags.BINARY_CLASSIFICATION, merlin.schema.Tags.TARGET]
    )
    for tags in dict.fromkeys(schema[name].tags for name in FIELDS.values()):
        names = [name for name in FIELDS.values() if schema[name].tags == tags]
        encoded = names >> ops.Categorify(out_path=str(folder), dtype="int32")
        features += encoded >> ops.AddTags([str(tag) for tag in tags])
    for name, tag in (("user_id", Tags.USER), ("item_id", Tags.ITEM)):
        clicks = [name] >> ops.TargetEncoding(["click"], kfold=5, p_smooth=20, out_path=str(folder))
        features += clicks >> ops.Normalize(out_dtype="float32") >> ops.AddTags([str(Tags.CONTINUOUS), str(tag)])
    return nvt.Workflow(features)


def convert_aliccp(skeleton: str | os.PathLike, common: str | os.PathLike, target: str | os.PathLike) -> pathlib.Path:
    """Writes a part's two text files as one Parquet file, never more than a block of samples in memory.

    A column has one id a sample: of a field with several ids the one of the largest value, 0 without any. Samples that were
    bought but not clicked, which cannot be, are left out.

    Args:
        skeleton: one line a sample.
        common: features that samples of a user have in common, which are kept in memory.
        target: the Parquet file; its folder is made where it is missing.

    Raises:
        ValueError: if a file is not of the format.
    """
    index, of_users = _read_common(pathlib.Path(common))
    target = pathlib.Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([*((name, pa.int64()) for name in FIELDS.values()), *((name, pa.int8()) for name in TARGETS)])
    names = ["sample", *TARGETS, "index", "count", "features"]
    with pq.ParquetWriter(target, schema) as writer:
        for batch in _read(pathlib.Path(skeleton), names, {name: pa.int8() for name in TARGETS}):
            click, conversion = (batch[name].to_numpy() for name in TARGETS)
            place = pc.index_in(batch["index"], value_set=index)
            if place.null_count:
                raise ValueError(
                    f"'{common}' must have all common features that '{skeleton}' names. "
                    f"Received: none of '{batch['index'].filter(pc.is_null(place))[0]}'."
                )
            columns = _features(batch["features"], skeleton)
            for name, values in of_users.items():
                theirs = values[place.to_numpy()]
                columns[name] = np.where(columns[name] == 0, theirs, columns[name])
            columns.update(click=click, conversion=conversion)
            possible = ~((click == 0) & (conversion == 1))
            writer.write_table(pa.table({name: columns[name][possible] for name in schema.names}, schema=schema))
    return target


def _find(path: pathlib.Path, part: str) -> list[pathlib.Path]:
    names = [f"sample_skeleton_{part}.csv", f"common_features_{part}.csv"]
    folder = path / part if all((path / part / name).is_file() for name in names) else path
    return require_files(folder, names, _SOURCE)


def _read_common(path: pathlib.Path) -> tuple[pa.Array, dict[str, np.ndarray]]:
    """The indices, and per column that occurs an id for each; memory grows with the users."""
    indices: list[pa.Array] = []
    parts: list[dict[str, np.ndarray]] = []
    for batch in _read(path, ["index", "count", "features"], {}):
        indices.append(batch["index"])
        parts.append(_features(batch["features"], path))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in FIELDS.values()}
    return pa.concat_arrays(indices), {name: values for name, values in columns.items() if values.any()}


def _read(path: pathlib.Path, names: list[str], types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    types = {**dict.fromkeys(names, pa.string()), **types}
    try:
        with pa_csv.open_csv(
            path,
            pa_csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
            pa_csv.ParseOptions(quote_char=False),
            pa_csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        ) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        raise ValueError(f"'{path}' must have lines of {', '.join(names)}. Received: {error}") from error


def _features(texts: pa.Array, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Column -> int64 ids (rows,), of lists of features as text."""
    lists = pc.split_pattern(texts, "\x01")
    rows = pc.list_parent_indices(lists).to_numpy()
    fields, rest = _halves(pc.list_flatten(lists), "\x02", path)
    ids, values = _halves(rest, "\x03", path)
    ids, values = ids.cast(pa.int64()).to_numpy(), values.cast(pa.float64()).to_numpy()
    columns = {}
    for field, name in FIELDS.items():
        found = np.flatnonzero(pc.equal(fields, field).to_numpy(zero_copy_only=False))
        # Ascending by value, so that the largest is written last; of equal ones the first.
        found = found[::-1][np.argsort(values[found[::-1]], kind="stable")]
        columns[name] = np.zeros(len(texts), np.int64)
        columns[name][rows[found]] = ids[found]
    return columns


def _halves(texts: pa.Array, separator: str, path: str | os.PathLike) -> tuple[pa.Array, pa.Array]:
    halves = pc.split_pattern(texts, separator)
    wrong = pc.not_equal(pc.list_value_length(halves), 2)
    if pc.any(wrong).as_py():
        raise ValueError(
            f"Features in '{path}' must be 'field \\x02 id \\x03 value'. Received: {texts.filter(wrong)[0].as_py()!r}."
        )
    flat = pc.list_flatten(halves)
    places = np.arange(len(texts)) * 2
    return flat.take(pa.array(places)), flat.take(pa.array(places + 1))
