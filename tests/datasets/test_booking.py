"""Booking.com's files: stays become trips, and the encoded trips keep their order."""

from __future__ import annotations

import pandas as pd
import pytest

from merlin_models.datasets.booking import get_booking, to_trips
from merlin_models.datasets.synthetic import named_schema
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import Tags

HEADER = "user_id,checkin,checkout,city_id,device_class,affiliate_id,booker_country,hotel_country,utrip_id"
TRAIN = """
1,2016-08-13,2016-08-14,8183,desktop,7168,Elbonia,Gondal,1_1
1,2016-08-18,2016-08-21,60902,desktop,7168,Elbonia,Gondal,1_1
1,2016-08-14,2016-08-16,15626,desktop,7168,Elbonia,Gondal,1_1
2,2016-12-31,2017-01-02,8183,mobile,1,Gondal,Elbonia,2_1
2,2017-01-02,2017-01-04,15626,mobile,1,Gondal,Elbonia,2_1
"""
TEST = """
1,2017-02-04,2017-02-05,60902,mobile,1,Elbonia,Gondal,1_2
1,2017-02-05,2017-02-06,0,mobile,1,Elbonia,,1_2
"""
TRUTH = "utrip_id,user_id,city_id,hotel_country\n1_2,1,8183,Gondal\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train_set.csv").write_text(HEADER + TRAIN)
    (tmp_path / "test_set.csv").write_text(HEADER + TEST)
    (tmp_path / "ground_truth.csv").write_text(TRUTH)
    return tmp_path


def test_trips_by_hand(folder):
    trips = to_trips(pd.read_csv(folder / "train_set.csv")).to_pydict()
    assert trips["utrip_id"] == trips["session_id"] == ["1_1", "2_1"]
    assert trips["user_id"] == [1, 2]
    assert trips["device_class"] == ["desktop", "mobile"]
    assert trips["city_id"] == [[8183, 15626, 60902], [8183, 15626]]
    assert trips["booker_country"] == [["Elbonia"] * 3, ["Gondal"] * 2]
    assert trips["month"] == [[8, 8, 8], [12, 1]]
    assert trips["weekday_checkin"] == [[5, 6, 3], [5, 0]]  # a Saturday, a Sunday, a Thursday; a Saturday, a Monday
    assert trips["weekday_checkout"] == [[6, 1, 6], [0, 2]]
    assert trips["is_weekend"] == [[1, 1, 0], [1, 0]]


def test_encoded(folder):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the encoding")
    data = get_booking(folder)
    named = named_schema("booking.com")
    assert set(data.schema.column_names) == set(named.column_names)
    for column in named:
        ours = data.schema[column.name]
        for tag in set(Tags) - {Tags.LIST}:
            assert ours.has_tag(tag) == column.has_tag(tag), (column.name, tag)
        assert ours.is_list == column.is_list
    train, valid = (pd.read_parquet(str(part / "part_0.parquet")) for part in data)
    code = dict(zip([8183, 15626, 60902], train["city_id"][0], strict=True))
    assert min(code.values()) >= 3
    assert train["city_id"][1].tolist() == [code[8183], code[15626]]
    assert valid["city_id"][0].tolist() == [code[60902], code[8183]]  # the last one from the ground truth
    assert valid["utrip_id"].tolist() == ["1_2"]
    assert valid["session_id"].tolist() == [2]  # not in train
    features = KerasSequenceLoader(data.train, 2, shuffle=False).peek()
    assert features["city_id"].shape.as_list() == [2, None]
    assert "utrip_id" not in features


def test_missing_parts(folder):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the encoding")
    (folder / "ground_truth.csv").write_text("utrip_id,city_id\n")
    with pytest.raises(ValueError, match=r"ground_truth.csv' must have all trips of the test set. Received: no 1_2"):
        get_booking(folder)
    (folder / "test_set.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"must have test_set.csv. They are in https://github.com/bookingcom"):
        get_booking(folder, overwrite=True)
