"""From MovieLens ratings to a trained and saved recommender, and whether it learned anything.

    python examples/quickstart.py --output quickstart_output

Encodes the ratings with NVTabular, trains a small multi-layer perceptron on user, movie and genres to tell whether a user
gave a movie more than 3 stars, and compares it on ratings that nothing was fitted to with the share of likes and with a
model of user and movie biases. Writes the encoded data, model.keras, learning_curve.png and results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import movielens
import report
from baselines import Biases, auc, fit_biases, log_loss

from merlin_models.datasets.workflows import configure_dask

configure_dask()  # before anything brings dask.dataframe in

import keras
import numpy as np
import pandas as pd
from rich.console import Console

import merlin_models
import merlin_models.tf as ml
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import ColumnSchema, Schema

TARGET = "rating_b"
FEATURES = ["userId", "movieId", "genres"]
# Chosen by AUC on valid, over a few values each and three splits.
DIM, L2, LEARNING_RATE, AVERAGING, PATIENCE = 64, 1e-3, 1e-3, 0.99, 3
BIAS_L2 = (0.25, 0.5, 1.0, 2.0, 4.0)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("quickstart_output"), help="a folder")
    parser.add_argument("--epochs", type=int, default=20, help="at most; training stops once valid no longer improves")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1, help="of the split, the weights and the order of rows")
    options = parser.parse_args(arguments)
    for name in ("epochs", "batch_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1. Received: {getattr(options, name)}.")
    return options


def make_loader(
    data: movielens.Prepared, part: str, batch_size: int, longest: int, seed: int | None = None
) -> KerasSequenceLoader:
    """Batches of a part of the data, genres padded to `longest`; in random order if there is a seed."""
    loader = KerasSequenceLoader(
        data.files(part),
        batch_size,
        label_names=[TARGET],
        cat_names=FEATURES,
        cont_names=[],
        sparse_names=["genres"],
        sparse_max={"genres": longest},
        sparse_as_dense=True,
        shuffle=seed is not None,
        seed=seed,
    )
    return loader.map(lambda features, labels: (features, keras.ops.reshape(labels, (-1,))))


def make_inputs(schema: Schema) -> keras.layers.Layer:
    """The embeddings of the features, with a penalty on their tables: most movies have too few ratings to do without."""

    def feature(column: ColumnSchema) -> ml.FeatureConfig:
        table = ml.TableConfig(
            column.domain_name,
            column.cardinality,
            DIM,
            initializer=keras.initializers.TruncatedNormal(stddev=0.05),
            regularizer=keras.regularizers.L2(L2),
        )
        return ml.FeatureConfig(column.name, table, padding_id=0 if column.is_list else None)

    return ml.EmbeddingFeatures([feature(column) for column in schema], schema=schema)


def make_model(schema: Schema) -> ml.Model:
    """The first model of the tutorial."""
    features = schema.select_by_name(FEATURES)
    model = ml.Model(
        ml.InputBlock(features, branches={"categorical": make_inputs(features)}),
        ml.MLPBlock([64, 32]),
        ml.BinaryClassificationTask(TARGET),
    )
    # The running average of the weights predicts better than the weights of any one step. It is one of all rows of the
    # tables, as the penalty is, so they are not trained by the rows of a batch alone, which is the default.
    optimizer = keras.optimizers.Adam(LEARNING_RATE, use_ema=True, ema_momentum=AVERAGING)
    model.compile(optimizer=optimizer, embedding_optimizer="dense")
    return model


def train(
    model: ml.Model, data: movielens.Prepared, longest: int, options: argparse.Namespace, console: Console
) -> keras.callbacks.History:
    """Fits the model, and leaves it with the weights of the epoch that was best on valid."""
    area = f"{model.prediction_tasks[0].task_name}/auc"
    shown = {"train log-loss": "loss", "valid log-loss": "val_loss", "valid AUC": f"val_{area}"}
    return model.fit(
        make_loader(data, "train", options.batch_size, longest, options.seed),
        validation_data=make_loader(data, "valid", 4096, longest),
        epochs=options.epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
            keras.callbacks.EarlyStopping(f"val_{area}", mode="max", patience=PATIENCE, restore_best_weights=True),
            report.TrainingBar(console, shown),
        ],
    )


def best_biases(train: pd.DataFrame, valid: pd.DataFrame, schema: Schema) -> Biases:
    """The bias model fitted on train, with the l2 that is best on valid."""
    columns = [train[name].to_numpy() for name in ("userId", "movieId", TARGET)]
    sizes = (schema["userId"].cardinality, schema["movieId"].cardinality)
    candidates = [fit_biases(*columns, *sizes, l2) for l2 in BIAS_L2]
    return min(candidates, key=lambda model: log_loss(valid[TARGET].to_numpy(), predict_biases(model, valid)))


def predict_biases(model: Biases, rows: pd.DataFrame) -> np.ndarray:
    return model.predict(rows["userId"].to_numpy(), rows["movieId"].to_numpy())


def save_and_load(model: ml.Model, path: pathlib.Path, loader: KerasSequenceLoader) -> np.ndarray:
    """Saves the model, loads it again, and returns the predictions, which have to be the same.

    Raises:
        RuntimeError: if they are not.
    """
    chances = model.predict(loader, verbose=0)
    model.save(path)
    again = keras.models.load_model(path).predict(loader, verbose=0)
    if not np.array_equal(chances, again):
        raise RuntimeError(
            f"{path} must predict what was saved. Received: a difference of {abs(chances - again).max()}."
        )
    return chances[:, 0]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Does all that the module's docstring says; returns what results.json gets."""
    console = Console()
    merlin_models.show_build()
    keras.utils.set_random_seed(options.seed)
    started = time.perf_counter()

    with console.status("Encoding the ratings with NVTabular"):
        parts = movielens.split_by_user(movielens.read_ratings(), options.seed)
        data = movielens.prepare(parts, options.output)
        frames = {part: data.frame(part) for part in movielens.PARTS}
    schema = Schema().from_proto_text(str(data.schema_path))
    longest = max(int(frame["genres"].map(len).max()) for frame in frames.values())
    prepared = time.perf_counter()
    console.print()
    report.show_data(console, frames, ["userId", "movieId"], TARGET)

    model = make_model(schema)
    console.print()
    history = train(model, data, longest, options, console).history
    trained = time.perf_counter()

    labels = {part: frame[TARGET].to_numpy() for part, frame in frames.items()}
    biases = best_biases(frames["train"], frames["valid"], schema)
    predictions = {
        "global mean": np.full(len(labels["test"]), labels["train"].mean()),
        "user + movie bias": predict_biases(biases, frames["test"]),
        "embeddings + MLP": save_and_load(
            model, options.output / "model.keras", make_loader(data, "test", 4096, longest)
        ),
    }
    comparison = {
        name: {"AUC": auc(labels["test"], chances), "log-loss": log_loss(labels["test"], chances)}
        for name, chances in predictions.items()
    }
    console.print()
    report.show_comparison(console, comparison, f"{len(labels['test']):,} test ratings")

    area = f"{model.prediction_tasks[0].task_name}/auc"
    chosen = int(np.argmax(history[f"val_{area}"])) + 1
    on_valid = predict_biases(biases, frames["valid"])
    report.draw_learning_curve(
        options.output / "learning_curve.png",
        {
            "log-loss": {"train": history["loss"], "valid": history["val_loss"]},
            "AUC": {"train": history[area], "valid": history[f"val_{area}"]},
        },
        {"log-loss": log_loss(labels["valid"], on_valid), "AUC": auc(labels["valid"], on_valid)},
        chosen,
        "MovieLens: does a user give a movie more than 3 stars?",
    )
    results = {
        "test": comparison,
        "epoch": chosen,
        "seconds": {"prepare": prepared - started, "train": trained - prepared, "all": time.perf_counter() - started},
    }
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    margin = comparison["embeddings + MLP"]["AUC"] - max(comparison[name]["AUC"] for name in list(comparison)[:2])
    verdict = "beats both baselines" if margin > 0 else "does NOT beat both baselines"
    console.print(
        f"The model {verdict} on AUC, by {margin:+.4f}. It was saved, and predicts the same when loaded again.\n"
        f"{results['seconds']['all']:.0f} s, of which training {results['seconds']['train']:.0f} s. "
        f"See {options.output}/ for model.keras, learning_curve.png, results.json and the data.",
        highlight=False,
    )
    return results


if __name__ == "__main__":
    run(parse_arguments())
