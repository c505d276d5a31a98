"""From MovieLens' files to train and valid: encoded by NVTabular, with a schema."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any

import numpy as np

from merlin_models.datasets import folders
from merlin_models.datasets.download import cache_folder
from merlin_models.datasets.folders import Splits
from merlin_models.datasets.movielens.files import MovieLens, find_movielens, read_movielens
from merlin_models.datasets.workflows import import_nvtabular, transform_parts, workflow_option
from merlin_models.loader.sizes import require_integer

_PARTS = ("raw", "categories", "workflow", "train", "valid")
_AGE_YEARS = 10  # of an age group, where the release has years


def get_movielens(
    path: str | os.PathLike | None = None,
    variant: str = "ml-1m",
    overwrite: bool = False,
    transformed_name: str = "transformed",
    nvt_workflow: Any | None = None,
    *,
    valid_fraction: float = 0.2,
    seed: int = 42,
) -> Splits:
    """Prepares MovieLens for training: finds or downloads it, splits the ratings at random, encodes them.

    Ids, means and deviations come from the train part alone; :func:`movielens_workflow` says how values are encoded. A
    second call with the same arguments finds the first one's result.

    Args:
        path: folder of the release's files, or the one that they are in, or are to be downloaded to. None: the folder
            that ``INPUT_DATA_DIR`` names, or ``~/.cache/merlin_models``.
        variant: "ml-25m", "ml-1m", "ml-100k" or "ml-latest-small".
        overwrite: whether to replace what another call, with other arguments, left there.
        transformed_name: of the folder beside the files that is written to: train/, valid/ (Parquet files and
            schema.pbtxt), raw/ (the ratings as Parquet; not needed again), categories/ and workflow/.
        nvt_workflow: an ``nvtabular.Workflow`` in the place of :func:`movielens_workflow`, for the columns userId, movieId,
            rating, timestamp. Its result does not count as that of a later call.
        valid_fraction: share of the ratings in valid; above 0 and below 1.
        seed: of the split.

    Returns:
        The folders: ``train, valid = get_movielens(...)``; the schema is ``.schema``.

    Raises:
        ConnectionError: if the files are neither there nor can be downloaded.
        FileExistsError: if there are other data in the way.
        ImportError: if NVTabular is not installed.
        ValueError: if an argument is unfit.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.datasets import get_movielens
        >>> train, valid = get_movielens("data", variant="ml-100k")  # doctest: +SKIP
        >>> loader = ml.Loader(train, batch_size=4096)  # doctest: +SKIP
    """
    valid_fraction = folders.check_fraction(valid_fraction)
    seed = require_integer("seed", seed, 0)
    import_nvtabular()  # before a download
    files = find_movielens(cache_folder() if path is None else path, variant)
    options = {
        "data": variant,
        "valid_fraction": valid_fraction,
        "seed": seed,
        "workflow": workflow_option(nvt_workflow),
    }
    folder = (files / transformed_name).resolve()
    if folders.claim(folder, options, _PARTS, overwrite):
        data = read_movielens(files, variant)
        parts = _split(data, folder / "raw", valid_fraction, seed)
        workflow = nvt_workflow or movielens_workflow(data, folder, variant)
        transform_parts(workflow, parts, folder)
        folders.finish(folder, options, _PARTS)
    return folders.splits_of(folder)


def movielens_workflow(data: MovieLens, folder: str | os.PathLike, variant: str) -> Any:
    """The NVTabular workflow for ratings, not yet fitted.

    - userId, movieId, genres and, where the release has users, gender, age (groups), occupation and zipcode (zip_code in
      ml-100k) become int32 ids: 0 stays for padding, 1 missing, 2 not in train, then by frequency.
    - ``TE_<column>_rating``: the mean rating of an id, of other folds in train, smoothed, then mean 0 and deviation 1. Of
      movieId; in ml-1m also of userId and what is known of the user.
    - userId_count (but not in ml-1m): log of the number of ratings, mean 0 and deviation 1.
    - rating, and rating_binary: whether it is above 3.
    - title: as it is, an id in ml-1m.

    Args:
        data: the movies and users that are joined to the ratings.
        folder: where fitting writes the values of the ids, in categories/.
        variant: the release.

    Returns:
        An ``nvtabular.Workflow``.

    Raises:
        ImportError: if NVTabular is not installed.

    Example:
        >>> from merlin_models.datasets import get_movielens
        >>> train, valid = get_movielens("data", variant="ml-100k")  # encodes by this workflow  # doctest: +SKIP
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that joined tables are in host memory
        return _workflow(data, folder, variant)


def _workflow(data: MovieLens, folder: str | os.PathLike, variant: str) -> Any:
    nvt = import_nvtabular()
    from merlin.schema import Tags

    ops = nvt.ops

    def encode(columns: Any, *tags: Tags) -> Any:
        encoded = columns >> ops.Categorify(out_path=str(folder), dtype="int32")
        return encoded >> ops.AddTags([Tags.CATEGORICAL, *tags])

    def standardize(columns: Any, *tags: Tags) -> Any:
        return columns >> ops.Normalize(out_dtype="float32") >> ops.AddTags([Tags.CONTINUOUS, *tags])

    def mean_rating(columns: Any, *tags: Tags) -> Any:
        means = columns >> ops.TargetEncoding(["rating"], kfold=5, p_smooth=20, out_path=str(folder))
        return standardize(means, *tags)

    joined = ["movieId"] >> ops.JoinExternal(data.movies, on=["movieId"], columns_ext=["movieId", "genres", "title"])
    features = encode(["movieId"], Tags.ITEM, Tags.ITEM_ID) + encode(["userId"], Tags.USER, Tags.USER_ID)
    features += encode(joined["genres"], Tags.ITEM)
    features += mean_rating(["movieId"], Tags.ITEM)
    features += encode(joined["title"], Tags.ITEM) if variant == "ml-1m" else joined["title"]
    if data.users is not None:
        users, about = _user_columns(data.users, variant)
        of_users = ["userId"] >> ops.JoinExternal(users, on=["userId"], columns_ext=["userId", *about])
        features += encode(of_users[about], Tags.USER)
        if variant == "ml-1m":
            for column in about:
                features += mean_rating(of_users[column], Tags.USER)
            features += mean_rating(["userId"], Tags.USER)
    if variant != "ml-1m":
        counts = ["userId"] >> ops.JoinGroupby(cont_cols=["rating"], stats=["count"], out_path=str(folder))
        features += standardize(counts["userId_count"] >> ops.FillMissing(0) >> ops.LogOp(), Tags.USER)
    likes = ["rating"] >> ops.LambdaOp(lambda stars: (stars > 3).astype("int32")) >> ops.Rename(name="rating_binary")
    features += (
        ["rating"] >> ops.LambdaOp(lambda stars: stars.astype("float32")) >> ops.AddTags([Tags.REGRESSION, Tags.TARGET])
    )
    return nvt.Workflow(features + (likes >> ops.AddTags([Tags.BINARY_CLASSIFICATION, Tags.TARGET])))


def _user_columns(users: Any, variant: str) -> tuple[Any, list[str]]:
    users = users.rename(columns={"zipcode": "zip_code"}) if variant == "ml-100k" else users.copy()
    if variant == "ml-100k":
        users["age"] //= _AGE_YEARS
        return users, ["gender", "age", "zip_code"]
    return users, ["gender", "age", "occupation", "zipcode"]


def _split(data: MovieLens, folder: pathlib.Path, valid_fraction: float, seed: int) -> dict[str, list[pathlib.Path]]:
    """Writes the ratings of each part, in their order, as a Parquet file."""
    rows = len(data.ratings)
    num_valid = round(rows * valid_fraction)
    if not 0 < num_valid < rows:
        raise ValueError(f"valid_fraction must leave a rating to both parts. Received: {valid_fraction} of {rows}.")
    is_valid = np.zeros(rows, bool)
    is_valid[np.random.default_rng(seed).permutation(rows)[:num_valid]] = True
    folder.mkdir(parents=True)
    paths = {}
    for name, chosen in (("train", ~is_valid), ("valid", is_valid)):
        paths[name] = [folder / f"{name}.parquet"]
        data.ratings[chosen].to_parquet(paths[name][0], index=False, row_group_size=1_000_000)
    return paths
