"""Ali-CCP's text files: their format by hand, and what get_aliccp makes of generated ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from merlin_models.datasets import aliccp
from merlin_models.datasets.aliccp import FIELDS, convert_aliccp, get_aliccp
from merlin_models.datasets.synthetic import named_schema
from merlin_models.schema import Tags


def features(*entries: tuple[str, int, float]) -> str:
    return "\x01".join(f"{field}\x02{value}\x03{weight}" for field, value, weight in entries)


def write(path, *lines: tuple) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return str(path)


COMMON = [
    ("aa", 4, features(("101", 7, 1.0), ("109_14", 11, 0.5), ("109_14", 12, 2.5), ("109_14", 13, 2.5))),
    ("bb", 2, features(("101", 8, 1.0), ("129", 3, 1.0))),
]
SKELETON = [
    (1, 0, 0, "bb", 2, features(("205", 100, 1.0), ("301", 9, 1.0))),
    (2, 1, 1, "aa", 2, features(("205", 200, 1.0), ("508", 5, 1.5))),
    (3, 0, 1, "aa", 1, features(("205", 300, 1.0))),  # bought, not clicked
    (4, 1, 0, "aa", 1, features(("216", 6, 1.0))),
]


def test_the_format_by_hand(tmp_path):
    skeleton, common = write(tmp_path / "s.csv", *SKELETON), write(tmp_path / "c.csv", *COMMON)
    table = pd.read_parquet(convert_aliccp(skeleton, common, tmp_path / "new" / "a.parquet"))
    assert list(table.columns) == [*FIELDS.values(), "click", "conversion"]
    expected = {
        "user_id": [8, 7, 7],
        "user_categories": [0, 12, 12],  # of the largest value the first
        "user_geography": [3, 0, 0],
        "item_id": [100, 200, 0],
        "item_brand": [0, 0, 6],
        "user_item_categories": [0, 5, 0],
        "position": [9, 0, 0],
        "click": [0, 1, 1],
        "conversion": [0, 1, 0],
    }
    for name in table.columns:
        assert table[name].tolist() == expected.get(name, [0, 0, 0]), name


def test_many_blocks(tmp_path, monkeypatch, rng):
    users, items = rng.integers(0, 50, 400), rng.integers(1, 1000, 400)
    common = [(f"u{user}", 1, features(("101", user + 1, 1.0))) for user in range(50)]
    lines = [
        (n, 1, 0, f"u{user}", 1, features(("205", item, 1.0)))
        for n, (user, item) in enumerate(zip(users, items, strict=True))
    ]
    monkeypatch.setattr(aliccp, "BLOCK_BYTES", 1000)
    path = convert_aliccp(write(tmp_path / "s", *lines), write(tmp_path / "c", *common), tmp_path / "a.parquet")
    table = pd.read_parquet(path)
    np.testing.assert_array_equal(table["user_id"], users + 1)
    np.testing.assert_array_equal(table["item_id"], items)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ((1, 0, 0, "cc", 1, features(("205", 1, 1.0))), r"must have all common features.*Received: none of 'cc'"),
        ((1, 0, 0, "aa", 1, "205\x021"), r"must be 'field .* id .* value'. Received: '1'"),
        ((1, 0, 0, "aa", 1, "205"), r"must be 'field .* id .* value'. Received: '205'"),
        ((1, 0, 0), r"must have lines of sample, click, conversion, index, count, features. Received: "),
        ((1, "x", 0, "aa", 1, "205\x021\x031"), r"must have lines of sample, click, .*Received: "),
    ],
)
def test_what_is_not_of_the_format(line, message, tmp_path):
    skeleton, common = write(tmp_path / "s.csv", SKELETON[0], line), write(tmp_path / "c.csv", *COMMON)
    with pytest.raises(ValueError, match=message):
        convert_aliccp(skeleton, common, tmp_path / "a.parquet")


def test_files_that_are_not_there(tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the encoding")
    with pytest.raises(
        FileNotFoundError, match=r"must have sample_skeleton_train.csv, .*tianchi.aliyun.com/dataset/408"
    ):
        get_aliccp(tmp_path)


def test_encoded(tmp_path, rng):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the encoding")

    def draw(fields):
        return features(*((field, int(rng.integers(1, 9)), 1.0) for field in fields))

    of_users = [field for field in FIELDS if field < "13" or "_" in field]
    of_samples = [field for field in FIELDS if field not in of_users]
    for part, rows in (("train", 300), ("test", 40)):
        common = [(f"u{number}", len(of_users), draw(of_users)) for number in range(30)]
        lines = []
        for number in range(rows):
            start = (number, int(rng.random() < 0.3), 0, f"u{rng.integers(30)}", len(of_samples))
            lines.append((*start, draw(of_samples)))
        write(tmp_path / part / f"common_features_{part}.csv", *common)
        write(tmp_path / part / f"sample_skeleton_{part}.csv", *lines)
    data = get_aliccp(tmp_path)
    named = named_schema("aliccp")
    assert set(data.schema.column_names) == set(named.column_names)
    for column in named:
        for tag in (*Tags, "user_item"):
            assert data.schema[column.name].has_tag(tag) == column.has_tag(tag), (column.name, tag)
    train = pd.read_parquet(str(data.train / "part_0.parquet"))
    assert len(train) == 300
    assert train["click"].isin([0, 1]).all()
    assert train["TE_user_id_click"].std() == pytest.approx(1, abs=0.02)
    assert train["item_id"].between(3, 10).all()
    assert get_aliccp(tmp_path) == data
