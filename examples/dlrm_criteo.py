"""Which ads are clicked: DLRM and DCN-v2 on Criteo's logs, beside the click rate and logistic regression.

    python examples/dlrm_criteo.py                       # 1,000 rows of the 1 TB logs: too few to learn from, a smoke run
    python examples/dlrm_criteo.py --synthetic 1000000   # generated logs of the same shape: some minutes
    python examples/dlrm_criteo.py --data logs --embedding-dim 128 --batch-size 65536    # day_0, day_1.gz, ...

Encodes the logs with NVTabular (generated ones are encoded already), trains each model for some epochs, and measures AUC
and log-loss on the valid part, which nothing was fitted to. Writes the encoded data, a .keras file a model and
results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pyarrow.dataset
import report
from baselines import auc, log_loss
from rich.console import Console

import merlin_models
import merlin_models.tf as ml
from merlin_models.datasets import criteo
from merlin_models.datasets.folders import Splits
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import Schema

SAMPLE = "day_head_1000.tsv"
SAMPLE_VALID_FRACTION = 0.5  # it has 21 clicks
SYNTHETIC_MAX_ROWS = 100  # of a table: of larger ones a million rows say too little about pairs of ids
LEARNING_RATE = 2e-3  # of Adam
MODELS = {"logistic": "logistic regression", "dlrm": "DLRM", "dcn": "DCN-v2"}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=pathlib.Path, help="a file, or a folder of files, in Criteo's format")
    source.add_argument("--synthetic", type=int, metavar="ROWS", help="generate logs instead")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("dlrm_criteo_output"), help="a folder")
    parser.add_argument("--num-days", type=int, help="how many files of --data, the last one for valid; by default all")
    parser.add_argument("--frequency-threshold", type=int, default=15, help="rarer ids of the logs share one")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="by default all")
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1, help="of generated logs, the weights and the order of rows")
    options = parser.parse_args(arguments)
    for name, least in (("synthetic", 2), ("num_days", 1), ("embedding_dim", 1), ("epochs", 1), ("batch_size", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}. Received: {value}.")
    if options.num_days is not None and options.data is None:
        parser.error(f"--num-days is for --data. Received: {options.num_days} without it.")
    return options


def find_sample() -> pathlib.Path:
    """The file of 1,000 rows: in the folder that MERLIN_DATA_DIR names or its criteo-1tb-1k, else in ../shared/data.

    Raises:
        FileNotFoundError: if it is in none of them.
    """
    places = [pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "criteo-1tb-1k"]
    if named := os.environ.get("MERLIN_DATA_DIR"):
        places = [pathlib.Path(named), pathlib.Path(named) / "criteo-1tb-1k", *places]
    for place in places:
        if (place / SAMPLE).is_file():
            return place / SAMPLE
    raise FileNotFoundError(
        f"{SAMPLE} must be in one of {', '.join(map(str, places))}; --data and --synthetic do without it."
    )


def prepare(options: argparse.Namespace) -> Splits:
    """The folders of encoded logs; what an earlier run with the same options left is taken as it is."""
    folder = options.output / "data"
    if options.synthetic is not None:
        sizes = criteo.mlperf_cardinalities(max_rows=SYNTHETIC_MAX_ROWS)
        return criteo.synthetic_criteo(options.synthetic, folder, cardinalities=sizes, seed=options.seed)
    encoding = {"frequency_threshold": options.frequency_threshold}
    if options.data is None:
        return criteo.get_criteo(find_sample(), folder, valid_fraction=SAMPLE_VALID_FRACTION, **encoding)
    return criteo.get_criteo(options.data, folder, num_days=options.num_days, **encoding)


def make_loader(
    folder: pathlib.Path, schema: Schema, batch_size: int, generated: bool, seed: int | None = None
) -> KerasSequenceLoader:
    """Batches of a part; in random order if there is a seed. Generated numbers, which are log-normal, get their
    logarithms here; those of real logs got them from NVTabular."""
    loader = KerasSequenceLoader(str(folder), batch_size, schema=schema, shuffle=seed is not None, seed=seed)
    if not generated:
        return loader
    numbers = set(criteo.CONTINUOUS)

    def with_logarithms(features: dict[str, Any], labels: Any) -> tuple[dict[str, Any], Any]:
        return {name: keras.ops.log1p(x) if name in numbers else x for name, x in features.items()}, labels

    return loader.map(with_logarithms)


def make_model(name: str, schema: Schema, dim: int) -> ml.Model:
    """A model of MODELS with a task for the clicks, compiled."""
    task = ml.BinaryClassificationTask(criteo.LABEL)
    if name == "dlrm":
        bottom, top = ml.MLPBlock([64, dim]), ml.MLPBlock([128, 64])
        model = ml.DLRMModel(schema, embedding_dim=dim, bottom_block=bottom, top_block=top, prediction_tasks=task)
    elif name == "dcn":
        model = ml.DCNModel(
            schema,
            depth=2,
            cross_block=ml.CrossBlock(depth=2, low_rank_dim=32),
            deep_block=ml.MLPBlock([128, 64]),
            embedding_options=ml.EmbeddingOptions(embedding_dim_default=dim),
            prediction_tasks=task,
        )
    else:
        model = ml.Model(ml.LinearFeatures(schema), task)
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE))
    return model


def labels_of(folder: pathlib.Path) -> np.ndarray:
    """The labels of a part, in the order of its rows."""
    files = sorted(map(str, folder.glob("*.parquet")))
    return pyarrow.dataset.dataset(files).to_table(columns=[criteo.LABEL])[criteo.LABEL].to_numpy()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Does all that the module's docstring says; returns what results.json gets."""
    console = Console()
    merlin_models.show_build()
    started = time.perf_counter()
    with console.status("Preparing the logs"):
        data = prepare(options)
    schema = data.schema
    train, valid = labels_of(data.train), labels_of(data.valid)
    seconds = {"prepare": time.perf_counter() - started}
    table_rows = sum(schema[name].cardinality for name in criteo.CATEGORICAL)
    console.print(
        f"\n{len(train):,} rows to train on, {train.mean():.1%} of them clicks; {len(valid):,} valid rows with "
        f"{int(valid.sum()):,} clicks; 26 tables with {table_rows:,} rows.",
        highlight=False,
    )

    def loader(part: pathlib.Path, seed: int | None = None) -> KerasSequenceLoader:
        return make_loader(part, schema, options.batch_size, options.synthetic is not None, seed)

    predictions = {"click rate": np.full(len(valid), train.mean())}
    for name in options.models:
        title = MODELS[name]
        console.print(f"\n{title}")
        keras.utils.set_random_seed(options.seed)
        model = make_model(name, schema, options.embedding_dim)
        begin = time.perf_counter()
        bar = report.TrainingBar(console, {"train log-loss": "loss"})
        model.fit(loader(data.train, options.seed), epochs=options.epochs, verbose=0, callbacks=[bar])
        seconds[title] = time.perf_counter() - begin
        predictions[title] = model.predict(loader(data.valid), verbose=0)[:, 0]
        model.save(options.output / f"{name}.keras")
    comparison = {
        name: {"AUC": auc(valid, chances), "log-loss": log_loss(valid, chances)}
        for name, chances in predictions.items()
    }
    seconds["all"] = time.perf_counter() - started
    console.print()
    report.show_comparison(console, comparison, f"{len(valid):,} valid rows")
    results = {"valid": comparison, "seconds": seconds}
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    trained = ", ".join(f"{name} {seconds[name]:.0f} s" for name in list(predictions)[1:])
    console.print(
        f"{seconds['all']:.0f} s, of which training: {trained}. See {options.output}/ for the models, results.json and "
        "the data.",
        highlight=False,
    )
    return results


if __name__ == "__main__":
    run(parse_arguments())
