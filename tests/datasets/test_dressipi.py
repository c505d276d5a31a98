"""Dressipi's files: views with their item's features and what was bought, split by the day."""

from __future__ import annotations

import pandas as pd
import pytest

from merlin_models.datasets.dressipi import get_dressipi2022, read_views
from merlin_models.datasets.synthetic import named_schema
from merlin_models.schema import Tags

SESSIONS = """session_id,item_id,date
3,20,2020-12-18 21:26:47.986
3,10,2020-12-18 21:25:00.373
13,10,2020-12-19 23:59:30.000
13,30,2020-12-20 00:00:10.000
18,30,2020-12-20 08:00:00.000
"""
PURCHASES = """session_id,item_id,date
3,30,2020-12-18 21:26:47.986
13,20,2020-12-20 00:01:00.000
18,40,2020-12-20 08:10:00.000
"""
FEATURES = """item_id,feature_category_id,feature_value_id
10,3,793
10,56,365
10,99,1
20,3,889
20,3,793
40,3,1
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train_sessions.csv").write_text(SESSIONS)
    (tmp_path / "train_purchases.csv").write_text(PURCHASES)
    (tmp_path / "item_features.csv").write_text(FEATURES)
    return tmp_path


def test_views_by_hand(folder):
    views = read_views(*(folder / f"{name}.csv" for name in ("train_sessions", "train_purchases", "item_features")))
    assert views["session_id"].tolist() == [3, 3, 13, 13, 18]
    assert views["item_id"].tolist() == [10, 20, 10, 30, 30]
    assert views["purchase_id"].tolist() == [30, 30, 20, 20, 40]
    assert views["day"].tolist() == [0, 0, 1, 2, 2]
    assert views["timestamp"].tolist()[0] == 1_608_326_700_373
    assert views["f_3"].tolist() == [793, 889, 793, -1, -1]
    assert views["f_56"].tolist() == [365, -1, 365, -1, -1]
    assert views["f_5"].eq(-1).all()
    assert "f_99" not in views


def test_encoded(folder):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the encoding")
    data = get_dressipi2022(folder, valid_days=1)
    named = named_schema("dressipi2022-preprocessed")
    assert set(data.schema.column_names) == set(named.column_names)
    for name in ("item_id", "purchase_id", "session_id", "f_3"):
        for tag in set(Tags):
            assert data.schema[name].has_tag(tag) == named[name].has_tag(tag), (name, tag)
    train, valid = (pd.read_parquet(str(part / "part_0.parquet")) for part in data)
    assert (len(train), len(valid)) == (4, 1)  # session 13 begins on the day before the last
    assert train["item_id"][3] == train["purchase_id"][0]  # one numbering: item 30
    assert train["item_id"][0] == train["item_id"][2] > 2
    assert valid["item_id"][0] == train["item_id"][3]
    assert valid["purchase_id"][0] == valid["session_id"][0] == 2  # not in train
    assert get_dressipi2022(folder, valid_days=1) == data
    with pytest.raises(FileExistsError, match="other values of valid_days"):
        get_dressipi2022(folder, valid_days=2)


def test_wrong_arguments(folder):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the encoding")
    with pytest.raises(ValueError, match=r"valid_days must leave a session to both parts. Received: 9 of 3"):
        get_dressipi2022(folder, valid_days=9)
    with pytest.raises(ValueError, match=r"valid_days must be an integer of at least 1. Received: 0"):
        get_dressipi2022(folder, valid_days=0)
    (folder / "item_features.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"must have item_features.csv. .*https://www.dressipi-recsys2022.com"):
        get_dressipi2022(folder)
