"""What a batch looks like for each argument, and the errors."""

from __future__ import annotations

import doctest

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from loader_data import rows_of, small_table

from merlin_models.loader import sizes
from merlin_models.loader import tensorflow as loader_module
from merlin_models.loader.tensorflow import KerasSequenceLoader, Loader, sample_batch


def load(batch_size=5, data=None, **kwargs):
    kwargs.setdefault("shuffle", False)
    return KerasSequenceLoader(small_table() if data is None else data, batch_size, **kwargs)


def test_a_batch_by_hand():
    loader = load(3, label_names=["clicked"], cat_names=["user", "item", "genres"], cont_names=["age"])
    (features, labels), (last, last_labels) = list(loader)
    assert list(features) == ["user", "item", "genres", "age"]
    assert features["user"].dtype == tf.int32
    assert features["user"].numpy().tolist() == [[10], [11], [12]]
    assert features["item"].dtype == tf.int64
    assert features["age"].dtype == tf.float32
    assert features["age"].numpy().tolist() == [[0.5], [1.5], [2.5]]
    genres = features["genres"]
    assert isinstance(genres, tf.RaggedTensor)
    assert (genres.dtype, genres.row_splits.dtype) == (tf.int64, tf.int64)
    assert genres.shape.as_list() == [3, None]
    assert genres.to_list() == [[7, 8], [], [9]]
    assert labels.dtype == tf.int64
    assert labels.numpy().tolist() == [[1], [0], [1]]
    assert last["genres"].to_list() == [[1, 2, 3], [4]]
    assert last_labels.numpy().tolist() == [[0], [1]]


def test_names_by_role():
    loader = load(label_names=["clicked"], cat_names=["user"], cont_names=["age"])
    assert (loader.cat_names, loader.cont_names, loader.label_names) == (["user"], ["age"], ["clicked"])
    assert loader.feature_names == ["user", "age"]
    assert Loader is KerasSequenceLoader


def test_without_names_all_other_columns_are_features():
    features, _ = load(label_names=["clicked"]).peek()
    assert list(features) == ["user", "item", "genres", "age", "watched"]


def test_no_labels_gives_features_only():
    assert list(load(cat_names=["user"]).peek()) == ["user"]


def test_several_labels_come_by_name():
    _, labels = load(cat_names=["user"], label_names=["watched", "clicked"]).peek()
    assert {name: label.dtype for name, label in labels.items()} == {"watched": tf.float32, "clicked": tf.int64}
    assert labels["clicked"].numpy().ravel().tolist() == [1, 0, 1, 0, 1]


def test_a_label_may_be_a_feature_too():
    features, labels = load(cat_names=["clicked"], label_names=["clicked"]).peek()
    assert features["clicked"].numpy().tolist() == labels.numpy().tolist()


def test_continuous_integers_become_float32():
    features = load(cat_names=[], cont_names=["user"]).peek()
    assert features["user"].dtype == tf.float32


def test_feature_columns():
    class NumericColumn:
        def __init__(self):
            self.parse_example_spec = {"age": None}

    assert list(load(feature_columns=["user", NumericColumn()]).peek()) == ["user", "age"]


def test_sparse_as_dense():
    loader = load(sparse_names=["genres"], sparse_max={"genres": 4}, sparse_as_dense=True)
    genres = loader.peek()["genres"]
    assert isinstance(genres, tf.Tensor)
    assert genres.dtype == tf.int64
    assert genres.numpy().tolist() == [[7, 8, 0, 0], [0] * 4, [9, 0, 0, 0], [1, 2, 3, 0], [4, 0, 0, 0]]


def test_only_named_lists_are_padded():
    table = small_table().append_column("tags", pa.array([[1.5], [], [2.5], [], []], pa.large_list(pa.float64())))
    features = load(data=table, sparse_names=["genres"], sparse_max={"genres": 3}, sparse_as_dense=True).peek()
    assert features["genres"].shape == (5, 3)
    assert isinstance(features["tags"], tf.RaggedTensor)
    assert features["tags"].dtype == tf.float32
    assert features["tags"].to_list() == [[1.5], [], [2.5], [], []]


def test_sparse_names_without_dense_stay_ragged():
    features = load(sparse_names=["genres"]).peek()
    assert isinstance(features["genres"], tf.RaggedTensor)


def test_a_batch_of_empty_lists():
    table = pa.table({"bag": pa.array([[], []], pa.list_(pa.int64()))})
    assert load(data=table).peek()["bag"].to_list() == [[], []]
    dense = load(data=table, sparse_max={"bag": 2}, sparse_as_dense=True).peek()["bag"]
    assert dense.numpy().tolist() == [[0, 0], [0, 0]]


def test_fixed_size_lists_and_list_labels():
    table = pa.table({"x": [1, 2], "pair": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))})
    _, labels = load(data=table, label_names=["pair"]).peek()
    assert labels.to_list() == [[1, 2], [3, 4]]
    assert labels.dtype == tf.int32


@pytest.mark.parametrize("dense", [True, False])
def test_too_long_list(dense):
    loader = load(2, sparse_names=["genres"], sparse_max={"genres": 2}, sparse_as_dense=dense)
    with pytest.raises(ValueError, match=r"column 'genres' must not be longer than sparse_max\['genres'\] = 2.*of 3"):
        list(loader)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1. Received: 0"),
        ({"batch_size": 2.0}, r"batch_size must be an integer"),
        ({"engine": "csv"}, r"engine must be None or 'parquet'. Received: 'csv'"),
        ({"parts_per_chunk": 0}, r"parts_per_chunk must be an integer of at least 1"),
        ({"buffer_size": 2.0}, r"buffer_size must be a float"),
        ({"global_size": 2}, r"global_size and global_rank must be given together"),
        ({"global_size": 2, "global_rank": 2}, r"global_rank must be less than global_size=2. Received: 2"),
        ({"global_size": 0, "global_rank": 0}, r"global_size must be an integer of at least 1"),
        ({"seed": -1}, r"seed must be an integer of at least 0. Received: -1"),
        ({"seed": 1, "seed_fn": lambda: 1}, r"seed_fn must be callable and not go with seed"),
        ({"seed_fn": 5}, r"seed_fn must be callable"),
        ({"device": "tpu"}, r"device must be None, 'cpu', 'gpu' or the number of a GPU. Received: 'tpu'"),
        ({"device": -1}, r"device must be None"),
        ({"device": 99}, r"device must be one of the \d+ GPUs that TensorFlow sees. Received: 99"),
        (
            {"label_names": ["rating"]},
            r"label_names must be among the columns \['user'.*Received: \['rating'\]",
        ),
        ({"cat_names": ["usr"]}, r"must be among the columns \['user', 'item'.*Received: \['usr'\]"),
        ({"cat_names": "user"}, r"cat_names must be a list of column names. Received: the string 'user'"),
        ({"cat_names": [1]}, r"cat_names must be a list of column names"),
        ({"cat_names": ["user", "user"]}, r"cat_names must name each column once"),
        (
            {"cat_names": ["user"], "cont_names": ["user"]},
            r"cat_names and cont_names must not share a column",
        ),
        ({"cat_names": ["age"]}, r"Columns in cat_names must hold integers. Received: 'age' of type double"),
        ({"cat_names": []}, r"must name a feature"),
        ({"feature_columns": ["user"], "cat_names": ["item"]}, r"feature_columns must not be given together"),
        ({"feature_columns": [3]}, r"feature_columns must hold column names"),
        ({"schema": {"user": 1}}, r"schema must be a merlin_models.schema.Schema. Received: dict"),
        ({"sparse_names": ["tags"]}, r"sparse_names must be among the loaded columns.*Received: 'tags'"),
        (
            {"sparse_names": ["user"]},
            r"sparse_names must name list columns. Received: 'user' of Arrow type int32",
        ),
        ({"sparse_as_dense": True}, r"sparse_names must name the columns that sparse_as_dense=True pads"),
        (
            {"sparse_names": ["genres"], "sparse_as_dense": True},
            r"sparse_max must have a length.*\['genres'\]",
        ),
        ({"sparse_max": {"genres": 0}}, r"sparse_max\['genres'\] must be a positive integer. Received: 0"),
        (
            {"sparse_names": [], "sparse_max": {"genres": 3}},
            r"sparse_max must only have columns of sparse_names",
        ),
    ],
)
def test_unfit_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        load(**kwargs)


def test_strings_must_be_encoded():
    table = small_table().append_column("title", pa.array(["a", "b", "c", "d", "e"]))
    with pytest.raises(ValueError, match=r"Column 'title' must hold integers.*Categorify"):
        load(data=table)
    assert list(load(data=table, cat_names=["user"]).peek()) == ["user"]


def test_nulls_name_the_column():
    table = pa.table({"x": [1, None]})
    with pytest.raises(ValueError, match="Column 'x' must not hold nulls"):
        list(load(data=table))


@pytest.mark.parametrize("device", [None, "cpu"])
def test_device_cpu(device):
    assert "CPU:0" in load(cat_names=["item"], device=device).peek()["item"].device


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["gpu", 0])
def test_device_gpu(device):
    assert "GPU:0" in load(cat_names=["item"], device=device).peek()["item"].device


def test_buffer_size_is_read_once(monkeypatch):
    monkeypatch.setattr(sizes, "available_memory", lambda: 1000)
    assert load(buffer_size=0.5)._budget == (500, 1)


def test_map_applies_in_order_and_returns_the_loader():
    loader = load(label_names=["clicked"], cat_names=["item"])
    assert loader.map(lambda x, y: (x, y + 1)) is loader
    loader.map(lambda x, y: ({"twice": x["item"] * 2}, tf.reshape(y, (-1,))))
    features, labels = loader.peek()
    assert features["twice"].numpy().ravel().tolist() == [2, 4, 6, 8, 10]
    assert labels.numpy().tolist() == [2, 1, 2, 1, 2]
    assert loader[0][1].shape == (5,)
    assert next(iter(loader))[1].shape == (5,)


def test_map_may_add_weights():
    loader = load(label_names=["clicked"], cat_names=["item"]).map(lambda x, y: (x, y, tf.ones_like(y)))
    assert len(loader.map(lambda x, y, weights: (x, y, weights * 2)).peek()) == 3


def test_map_without_labels():
    assert list(load(cat_names=["item"]).map(lambda x, y: ({"i": x["item"]}, y)).peek()) == ["i"]


def test_map_errors():
    with pytest.raises(TypeError, match="fn must be callable"):
        load().map(3)
    with pytest.raises(TypeError, match=r"must return \(features, labels\).*Received: dict"):
        load().map(lambda x, y: x).peek()


def test_multiprocessing_is_refused():
    loader = load()
    assert loader.use_multiprocessing is False
    with pytest.raises(ValueError, match="use_multiprocessing must be False"):
        loader.use_multiprocessing = True


def test_sample_batch_of_a_loader():
    loader = load(2, label_names=["clicked"], cat_names=["item"]).map(lambda x, y: (x, y * 10))
    features, labels = sample_batch(loader)
    assert rows_of([features], "item") == [1, 2]
    assert labels.numpy().tolist() == [[10], [0]]
    assert rows_of([sample_batch(loader, batch_size=4, include_targets=False)], "item") == [1, 2, 3, 4]
    assert len(loader) == 3
    shuffled = rows_of([sample_batch(loader, batch_size=5, shuffle=True, include_targets=False)], "item")
    assert sorted(shuffled) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match=r"A loader takes no further arguments. Received: \['label_names'\]"):
        sample_batch(loader, label_names=["clicked"])


def test_sample_batch_of_data():
    features = sample_batch(small_table(), batch_size=2)
    assert len(features) == 6
    features, labels = sample_batch(small_table(), batch_size=3, label_names=["clicked"])
    assert labels.shape == (3, 1)
    assert "clicked" not in features
    with pytest.raises(ValueError, match="batch_size must be given unless a loader is"):
        sample_batch(small_table())


def test_sample_batch_without_preparation():
    loader = load(3, label_names=["clicked"], sparse_names=["genres"], sparse_max={"genres": 3})
    features, labels = sample_batch(loader, prepare_features=False)
    assert set(features) == {"user", "item", "genres__values", "genres__offsets", "age", "watched"}
    assert features["item"].numpy().tolist() == [1, 2, 3]
    assert features["genres__values"].numpy().tolist() == [7, 8, 9]
    assert features["genres__offsets"].numpy().tolist() == [0, 2, 2, 3]
    assert labels.shape == (3, 1)
    dense = {"sparse_names": ["genres"], "sparse_max": {"genres": 1}, "sparse_as_dense": True}
    one_each = small_table().slice(4)
    features = sample_batch(one_each, batch_size=1, prepare_features=False, **dense)
    assert features["genres"].numpy().tolist() == [[4]]
    assert features["age"].shape == (1,)


def test_sample_batch_leaves_the_order_alone():
    loader = load(2, shuffle=True, seed=5)
    sample_batch(loader, shuffle=True)
    assert rows_of(loader, "item") == rows_of(load(2, shuffle=True, seed=5), "item")


def test_tensors_are_not_views_of_the_caller_s_table():
    """A loop may keep any batch: later batches don't write into it."""
    values = np.arange(1000)
    batches = list(KerasSequenceLoader(pa.table({"x": values}), 10, shuffle=False))
    assert [int(batch["x"][0, 0]) for batch in batches] == list(range(0, 1000, 10))


def test_docstring_examples():
    results = doctest.testmod(loader_module)
    assert results.attempted >= 7
    assert results.failed == 0


@pytest.mark.parametrize("names", [["a", "a", "y"], ["a", "y", "y"]])
def test_names_that_occur_twice(tmp_path, names):
    table = pa.table([pa.array([1, 2]), pa.array([3, 4]), pa.array([0, 1])], names=names)
    pq.write_table(table, tmp_path / "rows.parquet")
    message = rf"Columns that are read must have unique names\. Received twice: \['{max(names, key=names.count)}'\]"
    for data in (table, str(tmp_path / "rows.parquet")):
        with pytest.raises(ValueError, match=message):
            KerasSequenceLoader(data, 2, label_names=["y"])
    others = table.append_column("b", pa.array([5, 6]))
    loader = KerasSequenceLoader(others, 2, cat_names=["b"], label_names=["y" if names.count("y") == 1 else "b"])
    assert sorted(loader.peek()[0]["b"].numpy()[:, 0]) == [5, 6]
