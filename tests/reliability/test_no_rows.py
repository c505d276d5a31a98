"""fit, evaluate and predict of no rows, or of arrays of different lengths, are errors that say so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from reliability_data import SCHEMA, loader, rows, small_model, table

import merlin_models.tf as ml

STEPS = ("fit", "evaluate", "predict")


@pytest.fixture(scope="module")
def model():
    return small_model()


def called(model, step, x, y):
    return getattr(model, step)(x, *([] if y is None or step == "predict" else [y]), verbose=0)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("data", [table(0), table(20)], ids=["no rows", "fewer than a batch"])
def test_loaders(model, step, data):
    empty = loader(data, drop_last=True, shuffle=False)
    message = r"A loader must have at least one batch\. Received: none, .*batch_size=32, drop_last=True"
    with pytest.raises(ValueError, match=message):
        called(model, step, empty, None)
    if step == "fit":
        with pytest.raises(ValueError, match=message):
            model.fit(loader(table(32)), validation_data=empty, verbose=0)


@pytest.mark.parametrize("step", STEPS)
def test_arrays(model, step):
    features, targets = rows()
    none = {name: value[:0] for name, value in features.items()}
    with pytest.raises(ValueError, match=r"x must have at least one row.*Received: no row"):
        called(model, step, none, targets[:0])
    message = r"Features must have one length\. Received: \{'item': 256, 'bag': 256, 'age': 3\}"
    with pytest.raises(ValueError, match=message):
        called(model, step, {**features, "age": features["age"][:3]}, targets)
    assert model(none).shape == (0, 1)
    assert np.isfinite(model.predict({name: value[:1] for name, value in features.items()}, verbose=0)).all()


def test_validation_data(model):
    features, targets = rows()
    none = {name: value[:0] for name, value in features.items()}
    for empty in (none, {**features, "age": features["age"][:3]}):
        with pytest.raises(ValueError, match=r"must have at least one row|must have one length"):
            model.fit(features, targets, validation_data=(empty, targets[:0]), verbose=0)


@pytest.mark.parametrize("step", STEPS)
def test_frames(step):
    columns = SCHEMA.select_by_name(["item", "age"])
    model = ml.Model(ml.InputBlock(columns), ml.MLPBlock([4]), ml.BinaryClassificationTask("y"))
    model.compile("adam")
    frame = pd.DataFrame({name: value[:0] for name, value in rows()[0].items() if name != "bag"})
    with pytest.raises(ValueError, match=r"x must have at least one row.*Received: no row"):
        called(model, step, frame, frame["item"])
