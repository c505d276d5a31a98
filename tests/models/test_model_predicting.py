"""Predictions beside data frames and dictionaries; folders with schemas; frozen blocks."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pandas as pd
import pytest
from model_data import SCHEMA, TASK, ratings, small_model

import merlin_models.tf as ml
from merlin_models.models import Model


def frame(rows=10):
    features, _ = ratings(rows)
    genres = [list(row[row > 0]) for row in features["genres"]]
    scalars = {name: features[name][:, 0] for name in ("movieId", "userId")}
    return pd.DataFrame({**scalars, "genres": genres, "title": [f"title {i}" for i in range(rows)]}), features


def test_batch_predict_of_frames(tmp_path):
    model, (rows, features) = small_model(), frame()
    expected = model.predict(features, verbose=0)[:, 0]
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.index = range(10, 0, -1)
    for given in (rows, tmp_path / "rows.parquet", str(tmp_path)):
        out = model.batch_predict(given, batch_size=4)
        assert list(out.columns) == ["movieId", "userId", "genres", "title", TASK]
        np.testing.assert_allclose(out[TASK], expected, rtol=1e-5)
    assert list(model.batch_predict(rows, batch_size=4).index) == list(rows.index)
    assert TASK not in rows
    empty = model.batch_predict(rows[:0], batch_size=4)
    assert list(empty.columns) == list(out.columns)
    assert len(empty) == 0


def test_batch_predict_of_dictionaries():
    model, (_, features) = small_model(), frame()
    given = {**features, "title": np.array(["x"] * 10, dtype=object)}
    out = model.batch_predict(given, batch_size=4)
    assert list(out) == [*given, TASK]
    assert out["title"] is given["title"]
    np.testing.assert_allclose(out[TASK], model.predict(features, verbose=0), rtol=1e-5)
    none = model.batch_predict({name: value[:0] for name, value in given.items()}, batch_size=4)
    assert list(none) == [*given, TASK]
    assert none[TASK].shape == (0, 1)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "bool"])
def test_ids_of_all_integer_types(dtype):
    model, (rows, _) = small_model(), frame()
    rows = rows.assign(movieId=rows["movieId"] % 2, rating_b=0)
    small = rows.assign(movieId=rows["movieId"].astype(dtype), genres=[np.array(row, dtype) for row in rows["genres"]])
    if dtype == "bool":
        small["genres"] = rows["genres"]
    expected = model.batch_predict(rows, batch_size=4)[TASK]
    np.testing.assert_array_equal(model.batch_predict(small, batch_size=4)[TASK], expected)
    model.compile("adam")
    loader = ml.Loader(small, 4, cat_names=model.schema.column_names, label_names=["rating_b"])
    assert np.isfinite(model.fit(loader, verbose=0).history["loss"][0])


def test_batch_predict_where_all_lists_are_empty(tmp_path):
    model, (rows, features) = small_model(), frame(3)
    rows["genres"] = [[]] * 3
    expected = model.predict({**features, "genres": np.zeros_like(features["genres"])}, verbose=0)[:, 0]
    rows.to_parquet(tmp_path / "rows.parquet")
    for given in (rows, tmp_path / "rows.parquet"):
        np.testing.assert_allclose(model.batch_predict(given, batch_size=2)[TASK], expected, rtol=1e-5)
    encoder = ml.Encoder(SCHEMA.select_by_name(["userId", "genres"]), ml.MLPBlock([4]))
    assert encoder.batch_predict(rows).shape == (3, 4)
    with pytest.raises(ValueError, match="Column 'userId' must hold integers"):
        model.batch_predict(rows.assign(userId=[None] * 3), batch_size=2)


def test_predictions_of_a_shuffled_loader_warn():
    rows, _ = frame()
    model, loaders = (
        small_model(),
        [ml.Loader(rows, 4, schema=SCHEMA, label_names=[], shuffle=s) for s in (True, False)],
    )
    user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
    encoder = ml.Encoder(ml.Schema([user]), ml.MLPBlock([4]))
    top = ml.TopKEncoder(encoder, candidates=np.eye(4, dtype=np.float32), k=2)
    for predict in (model.predict, encoder.predict, encoder.batch_predict, top.predict, top.recommend):
        with pytest.warns(
            UserWarning, match=r"must have shuffle=False.*Received: a loader with shuffle=True"
        ) as caught:
            predict(loaders[0])
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            predict(loaders[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        encoder.encode(loaders[0], index="userId")  # the rows have their ids
        in_order = model.batch_predict(rows, batch_size=4)[TASK]
    np.testing.assert_allclose(in_order, model.predict(loaders[1], verbose=0)[:, 0], rtol=1e-5)


def test_batch_predict_of_several_tasks_and_vectors():
    vector = ml.ColumnSchema.create_continuous("vector", shape=(3,))
    schema = ml.Schema([ml.ColumnSchema.create_continuous("age"), vector])
    tasks = [ml.RegressionTask("a"), ml.MultiClassClassificationTask("b", num_classes=3)]
    model = ml.Model(ml.InputBlock(schema), ml.MLPBlock([4]), *tasks)
    features = {"age": np.array([[1.0], [2.0]], np.float32), "vector": np.ones((2, 3), np.float32)}
    rows = pd.DataFrame({"age": [1, 2], "vector": [[1.0] * 3] * 2})
    out = model.batch_predict(rows, batch_size=2)
    expected = {name: value.numpy() for name, value in model(features).items()}
    np.testing.assert_allclose(out["a/regression_task"], expected["a/regression_task"][:, 0], rtol=1e-5)
    name = "b/multi_class_classification_task"
    np.testing.assert_allclose(np.stack(out[name]), expected[name], rtol=1e-5)
    assert len(model.batch_predict(rows[:0], batch_size=2)) == 0


def test_wrong_batch_predict():
    model, (rows, features) = small_model(), frame()
    with pytest.raises(ValueError, match=r"must have all features .* missing: \['userId'\]"):
        model.batch_predict(rows.drop(columns="userId"), batch_size=4)
    for given in (rows, features):
        taken = given.assign(**{TASK: 0}) if given is rows else {**given, TASK: np.zeros(10)}
        with pytest.raises(ValueError, match="must not have columns named like the model's predictions"):
            model.batch_predict(taken, batch_size=4)
    with pytest.raises(TypeError, match=r"a data frame, a path of Parquet files or a dictionary. Received: list"):
        model.batch_predict([1], batch_size=4)
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        model.batch_predict(rows, batch_size=0)
    with pytest.raises(ValueError, match="must be a dictionary where the model's first block has no schema"):
        ml.Model(ml.MLPBlock([2]), ml.RegressionTask("y")).batch_predict(rows, batch_size=4)


def test_folder_with_schemas(tmp_path):
    model, (_, features) = small_model(), frame()
    for _ in range(2):  # the second time over the first
        model.save(tmp_path / "model")
    assert ml.Schema.from_json(tmp_path / "model" / ".merlin" / "input_schema.json") == model.schema
    output = ml.Schema.from_json(tmp_path / "model" / ".merlin" / "output_schema.json")
    assert output.column_names == [TASK]
    assert output[TASK].has_tag(ml.Tags.BINARY_CLASSIFICATION)
    assert not output[TASK].is_list
    for path in (tmp_path / "model", tmp_path / "model" / "model.keras"):
        np.testing.assert_array_equal(Model.load(path)(features), model(features))
    plain = keras.Sequential([keras.layers.Dense(1)])
    plain(np.ones((1, 1)))
    plain.save(tmp_path / "plain.keras")
    with pytest.raises(TypeError, match=r"must be that of a Model\. Received: a Sequential"):
        Model.load(tmp_path / "plain.keras")


def test_output_schema_of_a_model_without_a_schema(tmp_path):
    model = ml.Model(ml.MLPBlock([2]), ml.RegressionTask("a"), ml.MultiClassClassificationTask("b", num_classes=3))
    with pytest.raises(ValueError, match="must be built"):
        model.save(tmp_path / "model")
    model(np.ones((4, 3)))
    model.save(tmp_path / "model")
    assert not (tmp_path / "model" / ".merlin" / "input_schema.json").exists()
    shapes = {column.name: column.shape for column in model.get_output_schema()}
    assert shapes == {"a/regression_task": None, "b/multi_class_classification_task": (3,)}


def trained(model, weights):
    """Which of the variables a step of training moves."""
    before = {name: variable.numpy() for name, variable in weights.items()}
    model.fit(*ratings(32), verbose=0)
    return sorted(name for name, variable in weights.items() if (variable.numpy() != before[name]).any())


def test_freezing():
    model = small_model()
    inputs, mlp, task = model.blocks
    weights = {
        "table": inputs["categorical"].table("movieId"),
        "kernel": mlp.layers[0].kernel,
        "head": task.head.kernel,
    }
    model.compile("adam")
    assert trained(model, weights) == ["head", "kernel", "table"]
    model.freeze_blocks(["MLPBlock", inputs])
    assert trained(model, weights) == ["head"]
    model.unfreeze_blocks("MLPBlock")
    assert trained(model, weights) == ["head", "kernel"]
    model.freeze_blocks(task)
    assert trained(model, weights) == ["kernel"]
    model.unfreeze_all_frozen_blocks()
    assert trained(model, weights) == ["head", "kernel", "table"]


def test_what_was_frozen_before_stays_so():
    model = small_model()
    mlp = model.blocks[1]
    mlp.layers[0].bias.trainable = False
    model.freeze_blocks(mlp)
    model.freeze_blocks(mlp)
    model.unfreeze_blocks(mlp)
    assert [variable.name for variable in mlp.trainable_variables] == ["kernel"]


@pytest.mark.filterwarnings("error:Skipping variable loading")
def test_frozen_blocks_of_a_file(tmp_path):
    model = small_model()
    inputs, mlp, _ = model.blocks
    model.freeze_blocks([mlp, inputs["categorical"]])
    model.compile("adam")
    assert [variable.shape for variable in model.trainable_variables] == [(16, 1), (1,)]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [variable.shape for variable in again.trainable_variables] == [(16, 1), (1,)]
    again.unfreeze_blocks("MLPBlock")
    assert len(again.trainable_variables) == 4


@pytest.mark.parametrize("kind", ["adam", "dense", "multi"])
@pytest.mark.filterwarnings("error:Skipping variable loading")
def test_frozen_blocks_keep_their_optimizer_state_in_a_file(kind, tmp_path):
    def losses(each):
        return each.fit(*ratings(64), shuffle=False, epochs=2, verbose=0).history["loss"]

    model = small_model()
    inputs, mlp, _ = model.blocks
    optimizer = ml.MultiOptimizer([ml.OptimizerBlocks("adagrad", mlp)], "adam") if kind == "multi" else "adam"
    model.compile(optimizer, embedding_optimizer="dense" if kind == "dense" else "auto")
    losses(model)
    model.freeze_blocks([mlp, inputs])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [variable.shape for variable in again.trainable_variables] == [(16, 1), (1,)]
    assert losses(again) == pytest.approx(losses(model), rel=1e-6)
    for each in (model, again):
        each.unfreeze_blocks(list(each.blocks)[:2])
    assert losses(again) == pytest.approx(losses(model), rel=1e-6)
    again.save(tmp_path / "again.keras")
    assert losses(keras.models.load_model(tmp_path / "again.keras")) == pytest.approx(losses(again), rel=1e-6)


def model_of_table(**options):
    table = ml.EmbeddingTable(8, ml.ColumnSchema.create_categorical("movieId", 40), **options)
    model = ml.Model(table, ml.MLPBlock([4]), ml.BinaryClassificationTask("rating_b"))
    model.compile("adam")
    return model, table


@pytest.mark.filterwarnings("error:Skipping variable loading")
def test_a_table_that_was_made_frozen_can_be_trained(tmp_path):
    model, table = model_of_table(trainable=False)
    weights = {"table": table.table, "kernel": model.blocks[1].layers[0].kernel}
    assert not table.trainable
    assert trained(model, weights) == ["kernel"]
    model.save(tmp_path / "frozen.keras")
    for change in (lambda each: setattr(each[0], "trainable", True), lambda each: each.unfreeze_blocks(each[0])):
        loaded = keras.models.load_model(tmp_path / "frozen.keras")
        assert not loaded[0].trainable
        change(loaded)
        loaded.compile("adam")
        assert trained(loaded, {"table": loaded[0].table}) == ["table"]
        loaded.save(tmp_path / "trained.keras")
        again = keras.models.load_model(tmp_path / "trained.keras")
        assert trained(again, {"table": again[0].table}) == ["table"]


def test_tables_that_were_made_frozen_stay_so_below_a_block_that_is_unfrozen(tmp_path):
    columns = [ml.ColumnSchema.create_categorical(name, 40) for name in ("movieId", "userId")]
    tables = ml.Embeddings(ml.Schema(columns), dim=8, trainable={"movieId": False})
    model = ml.Model(ml.InputBlockV2(ml.Schema(columns), categorical=tables), ml.BinaryClassificationTask("rating_b"))
    model.compile("adam")
    model.freeze_blocks(model[0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.unfreeze_blocks(each[0])
        assert [variable.name for variable in each[0].trainable_variables] == ["userId"]
    loaded.unfreeze_blocks(loaded[0]["categorical"])
    assert [variable.name for variable in loaded[0].trainable_variables] == ["movieId", "userId"]


@pytest.mark.filterwarnings("error:Skipping variable loading")
@pytest.mark.parametrize("combiner", [None, keras.layers.Dense(3)])
def test_a_table_that_is_frozen_later_is_so_in_a_file(combiner, tmp_path):
    column = ml.ColumnSchema.create_categorical("genres", 8, value_count=(0, 10))
    table = ml.EmbeddingTable(8, column, sequence_combiner=combiner, aggregation="concat")
    model = ml.Model(table, keras.layers.GlobalAveragePooling1D(), ml.BinaryClassificationTask("rating_b"))
    model.compile("adam")
    model.freeze_blocks(table)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert not again[0].trainable
    assert len(again.trainable_variables) == 2
    again.unfreeze_blocks(again[0])
    assert len(again.trainable_variables) == (3 if combiner is None else 5)


def test_blocks_by_name():
    model = ml.Model(
        ml.InputBlock(SCHEMA), ml.MLPBlock([4]), ml.MLPBlock([4], name="top"), ml.BinaryClassificationTask("rating_b")
    )
    assert model.get_blocks_by_name("top") == [model.blocks[2]]
    assert model.get_blocks_by_name("MLPBlock") == [model.blocks[1], model.blocks[2]]
    assert model.get_blocks_by_name(["top", "MLPBlock"]) == [model.blocks[2], model.blocks[1]]
    with pytest.raises(ValueError, match=r"must be names of blocks or layers, such as .*Received: 'bottom'"):
        model.freeze_blocks("bottom")
    with pytest.raises(ValueError, match="must be names, or blocks of the model"):
        model.freeze_blocks(ml.MLPBlock([4]))
