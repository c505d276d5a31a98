"""MovieLens' releases: their file formats, where they are found, and what get_movielens makes of them."""

from __future__ import annotations

import glob
import shutil

import numpy as np
import pandas as pd
import pytest
from movielens_data import make_release

from merlin_models.datasets import movielens
from merlin_models.datasets.movielens import VARIANTS, files, find_movielens, get_movielens, read_movielens
from merlin_models.datasets.synthetic import named_schema
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import Tags

NEEDS_NVTABULAR = "needs nvtabular: the encoding"


def frame(folder) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in sorted(glob.glob(f"{folder}/*.parquet"))], ignore_index=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_are_read(variant, tmp_path):
    made = make_release(tmp_path / variant, variant)
    for path in (tmp_path, tmp_path / variant):
        assert find_movielens(path, variant) == tmp_path / variant
    data = read_movielens(tmp_path / variant, variant)
    pd.testing.assert_frame_equal(data.ratings, made["ratings"], check_dtype=False)
    assert data.movies["genres"].tolist() == made["movies"]["genres"].tolist()
    assert data.movies["movieId"].tolist() == made["movies"]["movieId"].tolist()
    assert data.movies["title"][3] == "Film: No. 3, the Café (1999)" or variant not in ("ml-1m", "ml-100k")
    if variant in ("ml-1m", "ml-100k"):
        pd.testing.assert_frame_equal(data.users[made["users"].columns], made["users"], check_dtype=False)
    else:
        assert data.users is None


def test_what_is_not_there_is_downloaded(tmp_path, monkeypatch):
    asked = []

    def download(url, target, md5):
        asked.append((url, target, md5))
        make_release(tmp_path / "packed", "ml-1m")
        return shutil.make_archive(str(target.with_suffix("")), "zip", tmp_path, "packed")

    monkeypatch.setattr(files, "download", download)
    folder = find_movielens(tmp_path / "data", "ml-1m") if (tmp_path / "data").mkdir() is None else None
    assert folder == tmp_path / "data" / "ml-1m"
    assert sorted(file.name for file in folder.iterdir()) == ["movies.dat", "ratings.dat", "users.dat"]
    url = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
    assert asked == [(url, tmp_path / "data" / "ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906")]
    assert find_movielens(tmp_path / "data", "ml-1m") == folder
    assert len(asked) == 1
    with pytest.raises(ValueError, match=r"must have u.data, .*Received: no u.data, u.genre, u.item, u.user"):
        find_movielens(tmp_path / "data" / "ml-100k", "ml-100k")


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"variant must be one of ml-25m, .*Received: 'ml-32m'"):
        find_movielens(tmp_path, "ml-32m")
    with pytest.raises(ValueError, match=r"valid_fraction must be above 0 and below 1. Received: 1.5"):
        get_movielens(tmp_path, valid_fraction=1.5)
    with pytest.raises(ValueError, match=r"seed must be an integer of at least 0. Received: -1"):
        get_movielens(tmp_path, seed=-1)


@pytest.mark.parametrize("variant", ["ml-25m", "ml-1m", "ml-100k"])
def test_columns_are_those_of_the_named_schema(variant, tmp_path):
    pytest.importorskip("nvtabular", reason=NEEDS_NVTABULAR)
    made = make_release(tmp_path / variant, variant)
    data = get_movielens(tmp_path, variant)
    named = named_schema(variant.replace("ml", "movielens"))
    assert set(data.schema.column_names) == set(named.column_names)
    for column in named:
        ours = data.schema[column.name]
        for tag in (Tags.CATEGORICAL, Tags.CONTINUOUS, Tags.TARGET, Tags.USER_ID, Tags.ITEM_ID, Tags.USER):
            assert ours.has_tag(tag) == column.has_tag(tag), (column.name, tag)
        assert ours.is_list == column.is_list
    train, valid = frame(data.train), frame(data.valid)
    assert len(valid) == round(len(made["ratings"]) * 0.2)
    assert len(train) + len(valid) == len(made["ratings"])
    for name in data.schema.select_by_tag(Tags.CATEGORICAL).column_names:
        both = np.concatenate([np.hstack(part[name].tolist()) for part in (train, valid)])
        assert both.min() > 0
        assert both.max() < data.schema[name].cardinality
    for name in data.schema.select_by_tag(Tags.CONTINUOUS).column_names:
        assert train[name].mean() == pytest.approx(0, abs=1e-3)
        assert train[name].std() == pytest.approx(1, abs=0.02)
        assert valid[name].notna().all()
    np.testing.assert_array_equal(train["rating_binary"], train["rating"] > 3)
    loader = KerasSequenceLoader(data.train, 16, schema=data.schema)
    assert sorted(loader.label_names) == ["rating", "rating_binary"]


def test_encoding_by_hand(tmp_path):
    pytest.importorskip("nvtabular", reason=NEEDS_NVTABULAR)
    made = make_release(tmp_path / "ml-latest-small", "ml-latest-small")
    data = get_movielens(tmp_path, "ml-latest-small", seed=1)
    train, raw = frame(data.train), pd.read_parquet(data.train.parent / "raw" / "train.parquet")
    np.testing.assert_array_equal(train["rating"], raw["rating"])
    titles = raw["movieId"].map(dict(zip(made["movies"]["movieId"], made["movies"]["title"], strict=True)))
    np.testing.assert_array_equal(train["title"], titles)
    counts = np.log1p(raw.groupby("userId")["rating"].transform("count"))
    expected = (counts - counts.mean()) / counts.std(ddof=0)
    np.testing.assert_allclose(train["userId_count"], expected, rtol=1e-2, atol=1e-2)
    lengths = raw["movieId"].map(dict(zip(made["movies"]["movieId"], made["movies"]["genres"].map(len), strict=True)))
    np.testing.assert_array_equal(train["genres"].map(len), lengths)
    # the same arguments find what is there, others are told, or replace it
    before = (data.train / "schema.pbtxt").stat().st_mtime_ns
    again = get_movielens(tmp_path, "ml-latest-small", seed=1)
    assert (again.train / "schema.pbtxt").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="other values of seed"):
        get_movielens(tmp_path, "ml-latest-small", seed=2)
    other = get_movielens(tmp_path, "ml-latest-small", seed=2, transformed_name="other")
    assert other.train == tmp_path / "ml-latest-small" / "other" / "train"


def test_a_workflow_of_the_caller(tmp_path):
    nvt = pytest.importorskip("nvtabular", reason=NEEDS_NVTABULAR)
    make_release(tmp_path / "ml-1m", "ml-1m")
    workflow = nvt.Workflow(["userId", "rating"] >> nvt.ops.AddTags(["mine"]))
    data = get_movielens(tmp_path, nvt_workflow=workflow)
    assert data.schema.select_by_tag("mine").column_names == ["userId", "rating"]
    with pytest.raises(FileExistsError, match="other values of workflow"):
        get_movielens(tmp_path, nvt_workflow=workflow)
    assert get_movielens(tmp_path, nvt_workflow=workflow, overwrite=True) == data


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INPUT_DATA_DIR", str(tmp_path))
    make_release(tmp_path / "ml-1m", "ml-1m")
    seen = []
    monkeypatch.setattr(movielens.prepare, "import_nvtabular", lambda: None)
    monkeypatch.setattr(movielens.prepare.folders, "claim", lambda folder, *rest: seen.append(folder))
    get_movielens()
    assert seen == [tmp_path / "ml-1m" / "transformed"]
