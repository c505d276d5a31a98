"""What reaches a workflow that serves, and what comes out of it: out of range, without rows, with nulls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

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
