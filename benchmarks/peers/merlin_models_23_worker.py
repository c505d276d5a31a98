"""Trains a model of merlin-models 23.12, a step for each line "step" on standard input; runs in its environment alone.

    python merlin_models_23_worker.py two_tower FOLDER

FOLDER has arrays.npz and settings.json, what ``merlin_models_23.py`` writes. Answers are lines of JSON.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import pathlib
import sys

ANSWERS = sys.stdout
sys.stdout = sys.stderr  # the libraries print

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

with contextlib.redirect_stdout(sys.stderr):
    import merlin.models.tf as mm
    from merlin.schema import ColumnSchema, Schema, Tags


def memory(field):
    """Bytes of a field of /proc/self/status."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def column(name, rows, tags, listed=False):
    """A categorical column whose ids are below `rows`."""
    options = {"dims": (None, (0, None))} if listed else {}
    domain = {"min": 0, "max": rows - 1, "name": name}
    return ColumnSchema(name, dtype=np.int64, tags=[Tags.CATEGORICAL, *tags], properties={"domain": domain}, **options)


def dense_of(block):
    """The dense layers of a block, in order."""
    return [layer for layer in block._flatten_layers() if isinstance(layer, tf.keras.layers.Dense)]


def two_tower(arrays, settings):
    """The model with its first weights, its inputs, and what its mean loss is to be multiplied by."""
    user = {"userId": [Tags.USER, Tags.USER_ID]}
    item = {"movieId": [Tags.ITEM, Tags.ITEM_ID]}
    columns = [column(name, rows, user.get(name, [Tags.USER])) for name, rows in settings["query"].items()]
    for name, rows in settings["item"].items():
        columns.append(column(name, rows, item.get(name, [Tags.ITEM]), listed=name == "genres"))
    tower = mm.MLPBlock(settings["layers"]).connect(
        mm.L2Norm(), tf.keras.layers.Rescaling(1 / math.sqrt(settings["temperature"]))
    )
    model = mm.TwoTowerModel(
        Schema(columns),
        query_tower=tower,
        embedding_options=mm.EmbeddingOptions(embedding_dim_default=settings["dim"]),
    )
    model.compile(
        optimizer=tf.keras.optimizers.Adam(settings["learning_rate"]),
        metrics=mm.TopKMetricsAggregator(mm.RecallAt(10), mm.MRRAt(10), mm.NDCGAt(10)),
    )
    x = {name[8:]: tf.constant(ids) for name, ids in arrays.items() if name.startswith("feature_")}
    genres = arrays["feature_genres"]
    del x["genres"]
    x["genres__values"] = tf.constant(genres[genres > 0])
    x["genres__offsets"] = tf.constant(np.concatenate([[0], np.cumsum((genres > 0).sum(1))]).astype(np.int64))
    model(x, training=True)
    for name, table in arrays.items():
        if name.startswith("table_"):
            [weight] = [each for each in model.trainable_variables if each.shape == table.shape]
            weight.assign(table)
    for tower in ("query", "item"):
        for i, layer in enumerate(dense_of(model.blocks[0][tower])):
            layer.kernel.assign(arrays[f"kernel_{tower}_{i}"])
    return model, (x,), len(genres)


def dlrm(arrays, settings):
    """The same for DLRM, with one id a feature; its mean loss is what is asked for."""
    columns = [column(name, rows, []) for name, rows in settings["rows"].items()]
    for name in settings["numbers"]:
        columns.append(ColumnSchema(name, dtype=np.float32, tags=[Tags.CONTINUOUS]))
    bottom, top = mm.MLPBlock(settings["bottom"]), mm.MLPBlock(settings["top"])
    task = mm.BinaryClassificationTask("label")
    model = mm.DLRMModel(
        Schema(columns),
        embedding_dim=settings["dim"],
        bottom_block=bottom,
        top_block=top,
        prediction_tasks=task,
    )
    model.compile(
        optimizer=tf.keras.optimizers.Adagrad(
            settings["learning_rate"],
            initial_accumulator_value=settings["accumulator"],
            epsilon=settings["epsilon"],
        ),
        metrics=[],
    )
    x = {name: tf.constant(arrays[f"feature_{name}"]) for name in (*settings["rows"], *settings["numbers"])}
    model(x, training=True)
    block = tf.constant(arrays["block"])
    for table in (layer for layer in model._flatten_layers() if isinstance(layer, mm.EmbeddingTable)):
        [name] = table.schema.column_names
        rows = settings["rows"][name]
        table.table.embeddings.assign(tf.tile(block, [-(-rows // len(block)), 1])[:rows])
    for i, layer in enumerate(layer for block in (bottom, top, task) for layer in dense_of(block)):
        layer.kernel.assign(arrays[f"kernel_{i}"])
        layer.bias.assign(arrays[f"bias_{i}"])
    return model, (x, tf.constant(arrays["labels"])), 1


def main(kind, folder):
    """Answers commands until there are no more."""
    folder = pathlib.Path(folder)
    arrays = dict(np.load(folder / "arrays.npz"))
    held = memory("VmRSS")
    model, data, scale = {"two_tower": two_tower, "dlrm": dlrm}[kind](
        arrays, json.loads((folder / "settings.json").read_text())
    )

    # Batches of unknown size, as its loader's are.
    specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), data)

    @tf.function(input_signature=[specs])
    def train(data):
        return model.train_step((*data, None)[:2])["loss_batch"] * scale

    train.get_concrete_function()

    def answer(**values):
        ANSWERS.write(json.dumps(values) + "\n")
        ANSWERS.flush()

    packages = ("merlin-models", "tensorflow-cpu")
    answer(**{package: importlib.metadata.version(package) for package in packages})
    for line in sys.stdin:
        if line.strip() == "step":
            answer(loss=float(train(data)))
        else:
            answer(bytes=memory("VmHWM") - held)


if __name__ == "__main__":
    main(*sys.argv[1:])
