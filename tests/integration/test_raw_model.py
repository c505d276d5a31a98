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
