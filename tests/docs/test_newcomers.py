"""What goes wrong in the first hour is said in the words under which docs/troubleshooting.md explains it."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from markdown_pages import ROOT

import merlin_models.tf as ml

MESSAGES = re.findall(r"^### `(.+?)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
ROWS = 8
FRAME = pd.DataFrame(
    {"userId": np.arange(1, ROWS + 1), "movieId": 1, "age": np.linspace(0, 1, ROWS, dtype="float32"), "liked": 1}
)
LISTS = FRAME.assign(genres=[[1, 2]] * ROWS)
USER, MOVIE = (ml.ColumnSchema.create_categorical(name, 9) for name in ("userId", "movieId"))
AGE = ml.ColumnSchema.create_continuous("age")
LIKED = ml.ColumnSchema("liked", dtype="int32", tags=[ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION])
SCHEMA = ml.Schema([USER, MOVIE, AGE, LIKED])
UNTAGGED = ml.Schema([ml.ColumnSchema("userId", dtype="int64"), ml.ColumnSchema("age", dtype="float32")])


def model(task=None):
    return ml.Model(ml.InputBlock(SCHEMA), ml.MLPBlock([4]), task or ml.BinaryClassificationTask("liked"))


def unbuilt():
    return ml.Model(ml.MLPBlock([4]), ml.BinaryClassificationTask("liked"))


def fit(data, made=None, y=None):
    made = made or model()
    made.compile("adam", run_eagerly=True)
    return made.fit(data, y, verbose=0)


def of_other_widths(folder):
    model().save_weights(folder / "m.weights.h5")
    ml.Model(ml.InputBlock(SCHEMA), ml.MLPBlock([5]), ml.BinaryClassificationTask("liked")).load_weights(
        folder / "m.weights.h5"
    )


def loader(frame, **options):
    return ml.Loader(frame, 4, **options)


NAMES = {"cat_names": ["userId", "movieId"], "cont_names": ["age"], "label_names": ["liked"]}
# What goes wrong, what its message begins with, and how it comes about; the argument is a folder.
WRONG = {
    "ids are floats": ("Ids of feature '...' must have", lambda _: fit(FRAME.astype({"userId": "float32"}))),
    "ids are strings, in memory": ("The column '...' must", lambda _: fit(FRAME.astype({"userId": str}))),
    "ids are strings, in a loader": ("Column '...' must hold", lambda _: loader(FRAME.astype({"userId": str}))),
    "an id is too large": ("Ids of feature '...' must be in", lambda _: fit(FRAME.assign(userId=10))),
    "an id is negative": ("Ids of feature '...' must be in", lambda _: fit(FRAME.assign(userId=-1))),
    "a path is given as the schema": ("schema must be a Schema", lambda folder: ml.InputBlock(str(folder))),
    "the same, V2": ("schema must be a Schema", lambda folder: ml.InputBlockV2(str(folder))),
    "the same, two towers": (
        "schema must be a Schema",
        lambda folder: ml.TwoTowerModel(str(folder), query_tower=ml.MLPBlock([4])),
    ),
    "columns have no tags": ("schema must have a column tagged ... that is", lambda _: ml.InputBlock(UNTAGGED)),
    "columns have no tags, V2": ("No columns selected", lambda _: ml.InputBlockV2(UNTAGGED)),
    "no column is the user's": (
        "The schema should contain",
        lambda _: ml.TwoTowerModel(SCHEMA, query_tower=ml.MLPBlock([4])),
    ),
    "no column is a target": ("schema must have a column tagged ....", lambda _: ml.PredictionTasks(UNTAGGED)),
    "a column has no largest id": (
        "Column '...' must have an int_domain",
        lambda _: ml.InputBlock(ml.Schema([ml.ColumnSchema("userId", dtype="int64", tags=["categorical"])])),
    ),
    "a column is not in the schema": ("The schema has no column", lambda _: SCHEMA["user"]),
    "a column is not in the data": ("Inputs must have all features", lambda _: fit(FRAME.drop(columns="age"))),
    "a column is not in the files": ("... must be among the columns", lambda _: loader(FRAME, cat_names=["user"])),
    "a label is not in the files": ("... must be among the columns", lambda _: loader(FRAME, label_names=["click"])),
    "a file is not there": ("paths_or_dataset must be", lambda folder: loader(str(folder / "train"))),
    "the data have no target": ("Task '...' must get targets", lambda _: fit(FRAME.drop(columns="liked"))),
    "the loader's label is another": (
        "Labels of the loader",
        lambda _: fit(loader(FRAME, **NAMES), model(ml.BinaryClassificationTask("clicked"))),
    ),
    "targets have two columns": (
        "Targets of task '...' must have the shape",
        lambda _: fit(dict(FRAME), y=np.ones((ROWS, 2))),
    ),
    "a class is too large": (
        "Received a label value",
        lambda _: fit(dict(FRAME), model(ml.MultiClassClassificationTask(MOVIE)), np.full(ROWS, 10)),
    ),
    "lists are in memory": (
        "The column '...' must",
        lambda _: fit(
            LISTS,
            ml.Model(
                ml.InputBlock(ml.Schema([ml.ColumnSchema.create_categorical("genres", 9, value_count=(0, 5))])),
                ml.BinaryClassificationTask("liked"),
            ),
        ),
    ),
    "an array is given": ("Inputs must be a dictionary", lambda _: model()(np.ones((2, 3)))),
    "a path is given to fit": ("x must be a loader", lambda folder: fit(str(folder))),
    "the model is not compiled": ("You must call compile()", lambda _: model().fit(FRAME, verbose=0)),
    "the model has no task": ("Last block must", lambda _: ml.Model(ml.InputBlock(SCHEMA), ml.MLPBlock([4]))),
    "an unbuilt model is saved": (
        "... a model that has not yet",
        lambda folder: unbuilt().save_weights(folder / "m.weights.h5"),
    ),
    "an unbuilt model is exported": ("... a model that has not yet", lambda folder: unbuilt().export(folder / "m")),
    "weights are of another model": ("... objects could not be loaded", of_other_widths),
    "XLA is asked for": (
        "Detected unsupported",
        lambda _: tf.function(model(), jit_compile=True)(
            {name: tf.constant(FRAME[name]) for name in ("userId", "movieId", "age")}
        ),
    ),
}
ALSO = {"... a model that has not yet been built.": "must be built before it is exported"}  # in the same entry


@pytest.mark.parametrize(("begin", "provoke"), WRONG.values(), ids=WRONG)
def test_the_message_is_explained(begin, provoke, tmp_path):
    (entry,) = [message for message in MESSAGES if message.startswith(begin)]
    # On a CPU: a GPU notes wrong ids, and gives NaN for wrong classes. Of the error the words are what is compared.
    with tf.device("cpu:0"), pytest.raises(Exception) as caught:  # noqa: PT011
        provoke(tmp_path)
    said = " ".join(str(caught.value).replace("`", "").split())
    parts = [re.escape(part.strip(" .")) for part in entry.split("...") if part.strip(" ,.")]
    assert re.search(".*".join(parts), said) or ALSO.get(entry, "\0") in said, said


def test_xla_of_keras_is_a_warning_that_is_explained():
    (entry,) = [message for message in MESSAGES if message.startswith("Model doesn't support")]
    made = model()
    with pytest.warns(UserWarning, match=re.escape(entry[:21])):
        made.compile("adam", jit_compile=True)
