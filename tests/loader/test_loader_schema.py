"""Roles of columns from a schema's tags."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from loader_data import small_table

import merlin_models.tf as ml
from merlin_models.loader.dataset import Dataset
from merlin_models.loader.tensorflow import KerasSequenceLoader

schema_module = pytest.importorskip("merlin_models.schema")
ColumnSchema, Schema, Tags = schema_module.ColumnSchema, schema_module.Schema, schema_module.Tags


def make_schema():
    return Schema(
        [
            ColumnSchema("item", tags=[Tags.CATEGORICAL, Tags.ITEM_ID]),
            ColumnSchema("genres", tags=[Tags.CATEGORICAL]),
            ColumnSchema("age", tags=[Tags.CONTINUOUS]),
            ColumnSchema("clicked", tags=[Tags.CATEGORICAL, Tags.TARGET]),
            ColumnSchema("watched", tags=["title"]),
        ]
    )


def names(**kwargs):
    loader = KerasSequenceLoader(small_table(), 2, schema=make_schema(), **kwargs)
    return loader.cat_names, loader.cont_names, loader.label_names


def test_tags_decide():
    assert names() == (["item", "genres"], ["age"], ["clicked"])


def test_names_go_before_tags():
    assert names(cat_names=["user"]) == (["user"], ["age"], ["clicked"])
    assert names(cont_names=[]) == (["item", "genres"], [], ["clicked"])
    assert names(label_names=["watched"]) == (["item", "genres", "clicked"], ["age"], ["watched"])
    assert names(label_names=[]) == (["item", "genres", "clicked"], ["age"], [])


def test_schema_column_that_the_data_lack():
    schema = Schema([ColumnSchema("movie", tags=[Tags.CATEGORICAL])])
    with pytest.raises(ValueError, match=r"must be among the columns \['user'.*Received: \['movie'\]"):
        KerasSequenceLoader(small_table(), 2, schema=schema)


def test_the_schema_says_what_empty_lists_are(tmp_path):
    data = pa.table({name: pa.array([[], [], []], pa.list_(pa.null())) for name in "abcdef"}).append_column(
        "x", [[0, 1, 2]]
    )
    schema = Schema(
        [
            ColumnSchema("a", dtype=np.int32, tags=[Tags.CATEGORICAL]),
            ColumnSchema("b", tags=[Tags.CATEGORICAL]),
            ColumnSchema("c", dtype=np.float64, tags=[Tags.CONTINUOUS]),
            ColumnSchema("d", dtype=np.float64, tags=[Tags.EMBEDDING]),
            ColumnSchema("e", dtype=np.int64, tags=[Tags.TARGET]),
        ]
    )
    pq.write_table(data, tmp_path / "part.parquet")
    for each in (data, data.drop_columns("x").to_pandas(), tmp_path / "part.parquet"):
        (features, labels), *_ = KerasSequenceLoader(each, 2, schema=schema, seed=0)
        dtypes = {name: tensor.dtype.name for name, tensor in features.items()}
        assert dtypes == {"a": "int32", "b": "int64", "c": "float32", "d": "float32"}
        assert (labels.dtype.name, labels.to_list(), features["a"].to_list()) == ("int64", [[], []], [[], []])
    named = KerasSequenceLoader(data, 2, cat_names=["a"], cont_names=["b"], sparse_max={"a": 2}, sparse_as_dense=True)
    features = named.peek()
    assert (features["a"].numpy().tolist(), features["a"].dtype.name) == ([[0, 0], [0, 0]], "int64")
    assert features["b"].dtype.name == "float32"
    for options in ({}, {"feature_columns": ["f"]}, {"feature_columns": ["f"], "schema": schema}):
        with pytest.raises(ValueError, match=r"must have a dtype in the schema, or be in cat_names or cont_names"):
            KerasSequenceLoader(data, 2, **options)
    with pytest.raises(ValueError, match=r"Column 'a' must hold integers.*Arrow type null"):
        KerasSequenceLoader(pa.table({"a": pa.nulls(2)}), 2, schema=schema.select_by_name("a"))


def test_ids_of_all_integer_types():
    """Categorical columns alone are cast: labels, other features and functions given to map see what there is."""
    types = {
        "b": pa.bool_(),
        "i8": pa.int8(),
        "u16": pa.uint16(),
        "u32": pa.uint32(),
        "u64": pa.uint64(),
        "i64": pa.int64(),
    }
    ids = {name: pa.array([1, 0], pa.uint8()).cast(leaf) for name, leaf in types.items()}
    lists = pa.array([[1, 2], []], pa.list_(pa.int16()))
    data = pa.table({**ids, "lists": lists, "label": ids["i8"], "other": ids["u16"], "number": ids["i8"]})
    categorical = [*types, "lists"]
    schema = Schema(
        [
            *(ColumnSchema(name, dtype=np.int16, tags=[Tags.CATEGORICAL]) for name in categorical),
            ColumnSchema("number", tags=[Tags.CONTINUOUS]),
            ColumnSchema("label", tags=[Tags.TARGET, Tags.CATEGORICAL]),
            ColumnSchema("other", tags=[Tags.EMBEDDING]),
        ]
    )
    expected = {**dict.fromkeys(("b", "i8", "u16", "lists"), "int32"), **dict.fromkeys(("u32", "u64", "i64"), "int64")}
    for options in ({"schema": schema}, {"cat_names": categorical, "label_names": ["label"]}):
        features, label = KerasSequenceLoader(data, 2, shuffle=False, **options).map(lambda x, y: (dict(x), y)).peek()
        dtypes = {name: tensor.dtype.name for name, tensor in features.items()}
        rest = {"number": "float32", "other": "uint16"} if "schema" in options else {}
        assert dtypes == {**expected, **rest}
        assert all(features[name].numpy().tolist() == [[1], [0]] for name in types)
        assert features["lists"].to_list() == [[1, 2], []]
        assert label.dtype.name == "int8"
    assert KerasSequenceLoader(data, 2, feature_columns=["i8"]).peek()["i8"].dtype.name == "int8"
    both = KerasSequenceLoader(data, 2, cat_names=["label"], label_names=["label"]).peek()
    assert [both[0]["label"].dtype.name, both[1].dtype.name] == ["int32", "int32"]
    large = KerasSequenceLoader(pa.table({"u64": pa.array([2**64 - 1], pa.uint64())}), 1, cat_names=["u64"])
    with pytest.raises(
        ValueError, match=r"Ids of column 'u64' must be less than 2\*\*63. Received: 18446744073709551615"
    ):
        list(large)


def test_vectors_are_features():
    schema = Schema([*make_schema(), ColumnSchema("user", tags=[Tags.EMBEDDING])])
    loader = KerasSequenceLoader(small_table(), 2, schema=schema)
    assert loader.feature_names == ["item", "genres", "age", "user"]
    assert (loader.cat_names, loader.cont_names) == (["item", "genres"], ["age"])


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("shape", [(3,), None])
@pytest.mark.parametrize("shuffle", [False, True])
def test_vectors_are_dense(fixed, shape, shuffle, tmp_path):
    vectors = np.arange(21, dtype=np.float64).reshape(7, 3)
    column = pa.array(vectors.tolist(), pa.list_(pa.float64(), 3) if fixed else pa.list_(pa.float64()))
    pq.write_table(pa.table({"u": np.arange(7), "v": column}), tmp_path / "part.parquet", row_group_size=2)
    schema = Schema([ColumnSchema.create_categorical("u", 9), ColumnSchema("v", tags=[Tags.EMBEDDING], shape=shape)])
    loader = KerasSequenceLoader(tmp_path / "part.parquet", 3, schema=schema, shuffle=shuffle)
    batches = list(loader)
    if shape is None and not fixed:
        assert all(isinstance(batch["v"], tf.RaggedTensor) for batch in batches)
        return
    assert [batch["v"].shape for batch in batches] == [(3, 3), (3, 3), (1, 3)]
    for batch in batches:
        assert batch["v"].dtype == tf.float32
        np.testing.assert_array_equal(batch["v"], vectors[batch["u"].numpy()[:, 0]])
    padded = KerasSequenceLoader(tmp_path / "part.parquet", 3, schema=schema, sparse_max={"v": 4}, sparse_as_dense=True)
    assert padded.peek()["v"].shape == (3, 4)


def test_vectors_have_one_length():
    data = pa.table({"v": [[1.0, 2.0], [3.0]]})
    schema = Schema([ColumnSchema("v", tags=[Tags.EMBEDDING], shape=(2,))])
    with pytest.raises(
        ValueError, match=r"Lists of column 'v', which is tagged embedding, must have the 2 numbers .* a list of 1"
    ):
        list(KerasSequenceLoader(data, 2, schema=schema))
    message = r"'v' must have vectors of one length, dense: .* Received: \((2|None), None\)"
    for options in ({"output_dims": 4}, {}):
        block = ml.PretrainedEmbeddings(schema, **options)
        with pytest.raises(ValueError, match=message):
            block({"v": tf.ragged.constant([[1.0, 2.0], [3.0]])})


def test_a_data_set_brings_its_schema():
    loader = KerasSequenceLoader(Dataset(small_table(), make_schema()), 2, shuffle=False)
    assert loader.feature_names == ["item", "genres", "age"]
    assert loader.label_names == ["clicked"]
    features, labels = loader.peek()
    assert features["item"].numpy().tolist() == [[1], [2]]
    assert labels.numpy().tolist() == [[1], [0]]
    named = KerasSequenceLoader(Dataset(small_table(), make_schema()), 2, cat_names=["user"])
    assert (named.feature_names, named.label_names) == (["user"], [])
    assert KerasSequenceLoader(Dataset(small_table(), make_schema()), 2, label_names=[]).label_names == []


def test_a_folder_brings_its_schema(tmp_path):
    Dataset(small_table(), make_schema()).to_parquet(tmp_path / "train")
    loader = KerasSequenceLoader(tmp_path / "train", 2)
    assert (loader.feature_names, loader.label_names) == (["item", "genres", "age"], ["clicked"])
    assert KerasSequenceLoader(str(tmp_path / "train" / "*.parquet"), 2).label_names == []
    (tmp_path / "train" / "schema.pbtxt").write_text('feature { name: "item" }')  # says nothing about features
    assert len(KerasSequenceLoader(tmp_path / "train", 2).feature_names) == 6


def test_a_merlin_data_set_brings_its_schema():
    merlin_io = pytest.importorskip("merlin.io", reason="needs merlin-core")
    import merlin.schema as theirs

    data = merlin_io.Dataset(small_table().to_pandas())
    assert len(KerasSequenceLoader(data, 2).feature_names) == 6  # no column is tagged
    schema = data.schema
    schema["item"] = schema["item"].with_tags([theirs.Tags.CATEGORICAL, theirs.Tags.ITEM_ID])
    schema["clicked"] = schema["clicked"].with_tags(theirs.Tags.TARGET)
    data.schema = schema
    loader = KerasSequenceLoader(data, 2)
    assert (loader.cat_names, loader.label_names) == (["item"], ["clicked"])


def test_data_set_of_rows(tmp_path):
    data = Dataset(small_table(), make_schema())
    assert (data.num_rows, len(data), len(data.head(2))) == (5, 5, 2)
    assert data.compute()["item"].tolist() == data.to_pandas()["item"].tolist() == [1, 2, 3, 4, 5]
    assert data.to_parquet(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert Schema.load(tmp_path / "a" / "b") == data.schema
    with pytest.raises(ValueError, match=r"table must have all columns of the schema. Received: none of \['movie'\]"):
        Dataset(small_table(), Schema(["movie"]))
    with pytest.raises(TypeError, match=r"table must be a pyarrow.Table. Received: DataFrame"):
        Dataset(small_table().to_pandas(), make_schema())
    with pytest.raises(TypeError, match=r"schema must be a merlin_models.schema.Schema. Received: dict"):
        Dataset(small_table(), {})
