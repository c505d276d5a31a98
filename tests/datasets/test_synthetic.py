"""Generated rows: what each kind of column holds, what depends on what, and the schemas by name."""

from __future__ import annotations

import doctest

import numpy as np
import pandas as pd
import pytest

from merlin_models.datasets import synthetic
from merlin_models.datasets.synthetic import SCHEMA_NAMES, columns, data, generate, generate_data, named_schema, schemas
from merlin_models.datasets.synthetic.columns import parse_columns
from merlin_models.loader.tensorflow import KerasSequenceLoader, sample_batch
from merlin_models.schema import Schema, Tags

COLUMNS = {
    "aliccp": 27,
    "aliccp-raw": 25,
    "booking.com": 11,
    "booking.com-raw": 7,
    "criteo": 40,
    "dressipi2022-preprocessed": 24,
    "e-commerce": 25,
    "e-commerce-large": 25,
    "movielens-100k": 11,
    "movielens-1m": 16,
    "movielens-1m-raw-ratings": 4,
    "movielens-25m": 8,
    "music-streaming": 13,
    "sequence-testing": 11,
    "sigir-browsing": 6,
    "sigir-sku": 4,
    "social": 19,
    "tenrec-video": 10,
    "testing": 11,
    "transactions": 4,
}


def rows(text: str, num_rows: int = 2000, **arguments) -> pd.DataFrame:
    return generate_data(parse_columns(text), num_rows, **arguments).to_pandas()


# ---- the notation ----


def test_a_schema_by_hand():
    schema = parse_columns(
        """
        item    ids         0..9   item_id item
        genres  ids32:kinds 1..5   x2..4 item

        age     float  -1.5..2     user
        year    integer  1990..2020
        watched regression
        click   binary
        title   text
        vector  float  x3
        """
    )
    assert schema["item"].cardinality == 10
    assert schema["item"].tags == ("categorical", "item_id", "item")
    assert (schema["genres"].domain_name, schema["genres"].value_count) == ("kinds", (2, 4))
    assert (schema["genres"].dtype, schema["item"].dtype) == (np.int32, np.int64)
    assert (schema["age"].float_domain.min, schema["age"].float_domain.max) == (-1.5, 2.0)
    assert schema["year"].has_tag(Tags.CONTINUOUS)
    assert schema["year"].int_domain.is_categorical is False
    assert schema.select_by_tag(Tags.TARGET).column_names == ["watched", "click"]
    assert schema["vector"].value_count == (3, 3)
    assert not schema["vector"].is_ragged
    assert schema["title"].dtype == object


@pytest.mark.parametrize(
    "line", ["item", "item number 0..9", "item ids 0-9", "item ids 0..9 Item", "item ids 0..9 x2.."]
)
def test_lines_that_are_none(line):
    with pytest.raises(ValueError, match=r"A line must be 'name kind.*Received: '"):
        parse_columns(line)


# ---- the schemas ----


def test_names():
    assert {name: len(named_schema(name)) for name in SCHEMA_NAMES} == COLUMNS
    for old, name in {
        "ecommerce": "e-commerce",
        "ecommerce_large": "e-commerce-large",
        "sequence_testing": None,
    }.items():
        assert named_schema(old) == named_schema(name or old.replace("_", "-"))
    with pytest.raises(ValueError, match=r"name must be one of aliccp, .*Received: 'netflix'"):
        named_schema("netflix")


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_every_schema_gives_rows_within_it(name):
    schema = named_schema(name)
    generated = generate_data(name, 50)
    assert generated.schema == schema
    table = generated.to_pandas()
    assert list(table.columns) == schema.column_names
    for column in schema:
        values = np.concatenate(table[column.name].to_list()) if column.is_list else table[column.name].to_numpy()
        assert values.dtype == column.dtype
        domain = column.int_domain or column.float_domain
        if domain is not None:
            assert values.min() >= domain.min
            assert values.max() <= domain.max
        if column.has_tag(Tags.CATEGORICAL):
            assert values.min() >= 1
        if column.is_list:
            lengths = table[column.name].map(len)
            assert lengths.between(*column.value_count).all()
    assert Schema().from_proto_text(schema.to_proto_text()) == schema


def test_sizes_of_the_reference():
    sizes = named_schema("e-commerce").categorical_cardinalities()
    assert (sizes["user_id"], sizes["item_id"], sizes["user_categories"], sizes["user_geography"]) == (
        1001,
        1001,
        301,
        6,
    )
    assert named_schema("e-commerce").select_by_tag("user_item").column_names == [
        f"user_item_{name}" for name in ("categories", "shops", "brands", "intentions")
    ]
    music = named_schema("music-streaming")
    assert music["user_genres"].domain_name == music["item_genres"].domain_name == "genres"
    assert music.select_by_tag("bias").column_names == ["position"]
    assert "session_id" not in music.select_by_tag(Tags.CATEGORICAL)
    assert named_schema("movielens-25m")["movieId"].cardinality == 56_681
    assert named_schema("criteo").select_by_tag(Tags.CONTINUOUS).column_names == [f"I{n}" for n in range(1, 14)]
    assert named_schema("aliccp-raw").select_by_tag(Tags.TARGET).column_names == []


# ---- the rows ----


def test_ids_are_log_normal_and_clipped():
    values = rows("item ids 0..100", 20_000)["item"]
    assert values.between(1, 100).all()
    assert values.median() == pytest.approx(np.exp(3), abs=1.5)
    # P(log-normal (3, 1) >= 100) = P(N > (ln 100 - 3) / 1) = 0.054
    assert (values == 100).mean() == pytest.approx(0.0542, abs=0.005)


def test_numbers_and_targets():
    table = rows("age float -2..3\nyear integer 5..8\nclick binary\nshare regression\nwhen int time\nprice float", 4000)
    assert table["age"].between(-2, 3).all()
    assert table["age"].mean() == pytest.approx(0.5, abs=0.1)
    assert sorted(table["year"].unique()) == [5, 6, 7, 8]
    assert table["click"].mean() == pytest.approx(0.5, abs=0.05)
    assert table["share"].between(0, 1).all()
    assert table["price"].between(0, 1).all()
    assert pd.to_datetime(table["when"], unit="s").dt.year.eq(2020).all()


def test_columns_follow_their_parents():
    table = rows(
        """
        user     ids 0..50 user_id user
        age      float     user
        shops    ids 0..9 x1..3 user
        item     ids 0..70 item_id item
        price    float     item
        session  ids 0..90 session_id session
        device   ids 0..3  session
        position ids 0..9
        """
    )
    table["shops"] = table["shops"].map(tuple)
    for parent, children in {"user": ["age", "shops"], "item": ["price"], "session": ["device"]}.items():
        assert table.groupby(parent)[children].nunique().eq(1).all(axis=None)
        assert (table[children].nunique() > 2).all()
    assert table.groupby("user")["price"].nunique().max() > 1
    assert table.groupby("item")["position"].nunique().max() > 1


def test_sequences_have_one_length_and_follow_their_ids():
    table = rows(
        """
        items     ids 0..50   x2..6 item_id item sequence
        category  ids 0..9    x2..6 item sequence
        price     float       x2..6 item sequence
        tags      ids 0..9    x1..3 item
        user      ids 0..9          user_id user
        clicks    ids 0..9    x2..6 user sequence
        """
    )
    lengths = table["items"].map(len)
    for name in ("category", "price", "clicks"):
        assert table[name].map(len).equals(lengths)
    assert sorted(lengths.unique()) == [2, 3, 4, 5, 6]
    values = pd.DataFrame({name: np.concatenate(table[name]) for name in ("items", "category", "price")})
    assert values.groupby("items")[["category", "price"]].nunique().eq(1).all(axis=None)
    assert table["tags"].map(len).between(1, 3).all()


def test_two_ids_of_a_kind_bear_no_children():
    table = rows("user ids 0..50 user_id user\nfriend ids 0..50 user_id user\nage float user", 500)
    assert table.groupby("user")["age"].nunique().max() > 1


def test_session_lengths():
    text = "item ids 0..9 x4..20 item_id sequence\ngenres ids 0..5 x1..2"
    table = rows(text, min_session_length=3, max_session_length=5)
    assert sorted(table["item"].map(len).unique()) == sorted(table["genres"].map(len).unique()) == [3, 4, 5]
    fixed = generate_data(parse_columns(text), 10, min_session_length=4, max_session_length=4)
    assert fixed.schema["item"].value_count == (4, 4)
    assert rows(text, max_session_length=6)["item"].map(len).between(4, 6).all()
    assert rows(text, max_session_length=2)["item"].map(len).eq(2).all()
    assert rows(text, min_session_length=30)["item"].map(len).eq(30).all()
    assert rows(text, min_session_length=0, max_session_length=1)["item"].map(len).isin([0, 1]).all()


def test_open_lengths():
    schema = parse_columns("item ids 0..9").map_column_schemas(lambda c: c.with_properties({"is_list": True}))
    lengths = generate_data(schema, 500).to_pandas()["item"].map(len)
    assert sorted(lengths.unique()) == list(range(1, 11))


# ---- the call ----


def test_the_same_arguments_give_the_same_rows():
    first, again, other = (generate_data("testing", 30, seed=seed).table for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_sets():
    train, valid, test = generate_data("e-commerce", 1001, set_sizes=(0.7, 0.2, 0.1))
    assert (train.num_rows, valid.num_rows, test.num_rows) == (701, 200, 100)
    assert train.schema is valid.schema
    whole = generate_data("e-commerce", 1001).to_pandas()
    pd.testing.assert_frame_equal(pd.concat([s.to_pandas() for s in (train, valid, test)], ignore_index=True), whole)


def test_paths(tmp_path):
    schema = named_schema("testing")
    schema.save(tmp_path)
    (tmp_path / "schema.json").write_text(schema.to_json())
    for path in (tmp_path, str(tmp_path / "schema.pbtxt"), tmp_path / "schema.json"):
        assert generate_data(path, 3).schema == schema
    for path in (tmp_path / "none", str(tmp_path / "none.pbtxt"), "a/folder"):
        with pytest.raises(FileNotFoundError, match=r"A path must be a schema's file or a folder with a schema.pbtxt"):
            generate_data(path, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input": "netflix"}, r"input must be one of aliccp.*Received: 'netflix'"),
        ({"input": 3}, r"input must be a Schema, a name or a path. Received: int"),
        ({"num_rows": 0}, r"num_rows must be an integer of at least 1. Received: 0"),
        ({"set_sizes": (0.5, 0.4)}, r"set_sizes must be positive and add up to 1. Received: \(0.5, 0.4\)"),
        ({"set_sizes": ()}, r"set_sizes must be positive and add up to 1. Received: \(\)"),
        ({"set_sizes": (0.99, 0.01)}, r"set_sizes must leave a row to each set"),
        ({"device": "gpu"}, r"device must be 'cpu'.*Received: 'gpu'"),
        ({"seed": -1}, r"seed must be an integer of at least 0. Received: -1"),
        ({"min_session_length": -1}, r"min_session_length must be an integer of at least 0. Received: -1"),
        ({"min_session_length": 5, "max_session_length": 4}, r"max_session_length must be an integer of at least 5"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_data(**{"input": "testing", "num_rows": 10, **arguments})


def test_a_loader_takes_it():
    train = generate_data("music-streaming", 100)
    loader = KerasSequenceLoader(train, 40)
    assert loader.label_names == ["click", "play_percentage", "like"]
    assert "session_id" not in loader.feature_names
    features = sample_batch(train, batch_size=10, include_targets=False)
    assert features["item_genres"].shape.as_list() == [10, None]


# ---- SyntheticData ----


def test_tensors():
    music = synthetic.SyntheticData("music_streaming", num_rows=30)
    tensors = music.tf_tensor_dict
    assert list(tensors) == music.schema.column_names
    assert tensors["item_genres"].shape == (30, 4)
    assert tensors["user_id"].shape == (30, 1)
    features, targets = music.tf_features_and_targets
    assert set(targets) == {"click", "play_percentage", "like"}
    assert not set(features) & set(targets)
    ragged = synthetic.SyntheticData("testing", num_rows=30).tf_tensor_dict["categories"]
    assert ragged.shape.as_list() == [30, None]
    dense = synthetic.SyntheticData("testing", num_rows=30, min_session_length=4, max_session_length=4)
    assert dense.tf_tensor_dict["categories"].shape == (30, 4)
    assert "title" not in synthetic.SyntheticData("movielens-25m").tf_tensor_dict


def test_a_part_of_the_schema():
    music = synthetic.SyntheticData("music_streaming")
    music._schema = music.schema.remove_by_tag(Tags.TARGET)
    assert music.schema.select_by_tag(Tags.TARGET).column_names == []
    assert "click" not in music.tf_tensor_dict
    features = music.tf_dataloader(batch_size=20).peek()
    assert isinstance(features, dict)
    assert features["user_id"].shape == (20, 1)


def test_loader_of_several_targets():
    features, targets = synthetic.SyntheticData("e-commerce").tf_dataloader().peek()
    assert features["item_id"].shape == (50, 1)
    assert {name: tuple(tensor.shape) for name, tensor in targets.items()} == {"click": (50, 1), "conversion": (50, 1)}
    one = synthetic.SyntheticData(named_schema("e-commerce").remove_by_name("conversion"))
    assert one.tf_dataloader(shuffle=False).peek()[1].shape == (50, 1)


def test_interactions():
    testing = synthetic.SyntheticData("testing", num_rows=20)
    before = testing.dataset.to_pandas()
    drawn = testing.generate_interactions(7, save=False)
    assert len(drawn) == 7
    pd.testing.assert_frame_equal(testing.dataset.to_pandas(), before)
    assert len(testing.generate_interactions()) == len(testing.dataset) == 20
    assert not testing.dataset.to_pandas()["item_id"].equals(before["item_id"])
    with pytest.raises(ValueError, match=r"num_rows must be an integer of at least 1"):
        testing.generate_interactions(0)
    with pytest.raises(ValueError, match=r"device must be 'cpu'"):
        synthetic.SyntheticData("testing", device="gpu")


@pytest.mark.parametrize("module", [columns, data, generate, schemas])
def test_docstring_examples(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
