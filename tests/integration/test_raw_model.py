"""What reaches a workflow that serves, and what comes out of it: out of range, without rows, with nulls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.serving import export_with_workflow, load_with_workflow

pytest.importorskip("nvtabular", reason="needs nvtabular: the workflow")

import nvtabular
from nvtabular import ops

ROW = {"user": 3, "age": 20, "price": 0.5}
COLUMNS = [
    ml.ColumnSchema.create_categorical("user", 60),
    ml.ColumnSchema.create_continuous("age"),
    ml.ColumnSchema.create_continuous("price"),
]


def raw_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    users = rng.permutation(np.arange(100) % 50).astype(np.int32)
    return pd.DataFrame(
        {"user": users, "age": rng.integers(1, 90, 100).astype(np.uint8), "price": rng.random(100, np.float32)}
    )


@pytest.fixture
def served(tmp_path):
    """A function: (fitted workflow, schema's columns) -> (model, RawModel)."""

    def make(workflow, columns):
        model = ml.Encoder(ml.Schema(columns), ml.MLPBlock([4]))
        return model, load_with_workflow(export_with_workflow(model, workflow, tmp_path / "export", portable=True))

    return make


def fitted(output, frame) -> nvtabular.Workflow:
    return nvtabular.Workflow(output).fit(nvtabular.Dataset(frame))


def categorify(names, folder, **options):
    return names >> ops.Categorify(out_path=str(folder / "categories"), **options)


def features_of_raw_frame(folder):
    return categorify(["user"], folder) + (["age", "price"] >> ops.Normalize())


def test_numbers_out_of_range(served, tmp_path):
    _, raw_model = served(fitted(features_of_raw_frame(tmp_path), raw_frame()), COLUMNS)
    assert raw_model.predict([{**ROW, "user": 9999}, {**ROW, "age": 255}])["vectors"].shape == (2, 4)
    for change, message in (
        ({"user": 2**32 + 3}, r"Column 'user' must have numbers of int32, from .* Received: 4294967299"),
        ({"age": -1}, r"Column 'age' must have numbers of uint8, from 0 to 255\. Received: -1"),
        ({"price": 1e300}, r"Column 'price' must have numbers of float32, from .* Received: 1e\+300"),
        ({"price": 10**400}, r"Column 'price' must have numbers of float32, from .* Received: an integer of 1329 bits"),
    ):
        with pytest.raises(ValueError, match=message):
            raw_model.predict([ROW, {**ROW, **change}])


def test_workflows_that_drop_rows(served, tmp_path):
    frame = raw_frame()
    cheap, dear = {**ROW, "price": 0.01}, {**ROW, "price": 0.9}
    keep = ops.Filter(f=lambda rows: rows[rows["price"] > 0.05])
    rule = r"A workflow that serves must keep every row\. Received: one whose "
    for output in (
        features_of_raw_frame(tmp_path) >> ops.Filter(f=lambda rows: rows[rows["price"] > -1]),
        categorify(["user"], tmp_path) + ["age"] + (["price"] >> keep >> ops.Normalize()),  # in one branch of several
    ):
        _, raw_model = served(fitted(output, frame), COLUMNS)
        _, again = served(raw_model.workflow, COLUMNS)  # what it holds is as it was loaded
        for each in (raw_model, again):
            assert each.predict([dear, dear])["vectors"].shape == (2, 4)
            with pytest.raises(ValueError, match=rule + r"Filter left 2 of 4 rows"):
                each.predict([cheap, dear, cheap, dear])
            with pytest.raises(ValueError, match=rule + r"Filter left 0 of 1 rows"):
                each.predict([cheap])
    _, raw_model = served(fitted(features_of_raw_frame(tmp_path) >> ops.Dropna(), frame), COLUMNS)
    with pytest.raises(ValueError, match=rule + r"Dropna left 1 of 2 rows"):
        raw_model.predict([ROW, {**ROW, "price": float("nan")}])


def test_nulls_that_the_workflow_was_fitted_on(served, tmp_path):
    nan = float("nan")
    few = {
        "city": ["Ulm", None, "Bonn", nan],
        "text": pd.array(["x", None, "y", "x"], "string"),
        "tags": [["a", None], ["b"], [], ["a"]],
        "codes": [[1.0, None], [2.0], [], [3.0]],
        "zip": [89073, None, 53111, 89073],  # which is float64, as in a Parquet file's integers with nulls
        "first": ["p", "q", None, "q"],
        "second": ["u", None, "v", "v"],
        "price": [1.5, None, 3.0, 4.0],
        "age": np.array([20, nan, 30, 40], np.float32),
    }
    frame = pd.concat([pd.DataFrame(few)] * 5, ignore_index=True)
    ids = ["city", "text", "tags", "codes", "zip"]
    output = categorify(ids, tmp_path)
    output += categorify([["first", "second"]], tmp_path, encode_type="combo")
    output += ["price"] >> ops.FillMissing(fill_val=-1)
    output += ["age"] >> ops.FillMedian() >> ops.Normalize()
    workflow = nvtabular.Workflow(output)
    features = workflow.fit_transform(nvtabular.Dataset(frame)).compute()
    columns = [
        ml.ColumnSchema.create_categorical(name, 20, value_count=(0, 4) if name in ("tags", "codes") else None)
        for name in [*ids, "first_second"]
    ]
    columns += [ml.ColumnSchema.create_continuous(name) for name in ("price", "age")]
    model, raw_model = served(workflow, columns)
    inputs = {name: features[name].to_numpy() for name in ("city", "text", "zip", "first_second", "price", "age")}
    inputs |= {name: tf.ragged.constant(features[name].map(list), dtype="int64") for name in ("tags", "codes")}
    expected = np.asarray(model(inputs))
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(raw_model.predict(frame)["vectors"], expected, atol=1e-6)
    rows = frame.head(4).to_dict("records")
    one_by_one = [raw_model.predict([row])["vectors"] for row in rows]
    np.testing.assert_allclose(np.concatenate(one_by_one), expected[:4], atol=1e-6)

    nulls = {name: [None] if name in ("tags", "codes") else None for name in few}
    for row in (nulls, {name: [nan] if value else nan for name, value in nulls.items()}):
        (alone,), beside = (raw_model.predict(rows)["vectors"] for rows in ([row], [rows[0], row]))
        np.testing.assert_allclose(alone, beside[1], atol=1e-6)
        np.testing.assert_allclose(beside[0], expected[0], atol=1e-6)
        encoded = raw_model.transform([row])
        assert [encoded[name][0] for name in ("city", "text", "zip", "first_second", "price")] == [1, 1, 1, 1, -1]


def test_nulls_that_the_workflow_does_not_fill(served, tmp_path):
    frame = raw_frame()
    _, raw_model = served(fitted(features_of_raw_frame(tmp_path), frame), COLUMNS)
    for null in (None, float("nan")):
        with pytest.raises(ValueError, match=r"Feature 'price' must have no nulls when .* Received: 1 of 2 null"):
            raw_model.predict([ROW, {**ROW, "price": null}])
    features = raw_model.transform([ROW, {**ROW, "price": None}])
    vectors = raw_model.predict_features(features)["vectors"]  # what the model makes of NaN
    np.testing.assert_allclose(vectors[:1], raw_model.predict([ROW])["vectors"], atol=1e-6)
    for name in ("user", "age"):
        with pytest.raises(ValueError, match=rf"Column '{name}' must have integers\. Received: None"):
            raw_model.predict([{**ROW, name: None}])
    ids = ml.ColumnSchema.create_categorical("price", 9)
    _, raw_model = served(fitted(["price"] >> ops.LambdaOp(lambda x: x), frame), [ids])
    with pytest.raises(ValueError, match=r"Feature 'price' must have numbers of int64 when it leaves .* Received: nan"):
        raw_model.predict([{"price": None}])


def test_workflows_that_group_rows(served):
    frame = raw_frame()
    grouped = ["user", "price"] >> ops.Groupby(groupby_cols=["user"], aggs={"price": ["mean"]})
    columns = [COLUMNS[0], ml.ColumnSchema.create_continuous("price_mean")]
    _, raw_model = served(fitted(grouped, frame), columns)
    assert raw_model.predict([ROW])["vectors"].shape == (1, 4)
    rule = r"A workflow that serves must keep every row"
    with pytest.raises(ValueError, match=rule + r"\. Received: one whose Groupby left 1 of 2 rows"):
        raw_model.predict([ROW, ROW])
    with pytest.raises(ValueError, match=rule + r" in its place\. Received: one whose Groupby sorted 2 rows"):
        raw_model.predict([ROW, {**ROW, "user": 1}])
