"""What the quickstart shows: tables and a progress bar by rich, and a picture by Matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

BLUE, ORANGE, GREY = "#1f6fb4", "#d9731a", "#6b6b6b"


def show_data(console: Console, frames: Mapping[str, pd.DataFrame], ids: Sequence[str], target: str) -> None:
    """Prints the size of each part: rows, different ids of each column, share of likes."""
    table = Table(title="Data", title_justify="left")
    table.add_column("part")
    for name in ("ratings", *ids, "likes"):
        table.add_column(name, justify="right")
    for part, frame in frames.items():
        counts = [f"{frame[name].nunique():,}" for name in ids]
        table.add_row(part, f"{len(frame):,}", *counts, f"{frame[target].mean():.1%}")
    console.print(table)


def show_comparison(console: Console, results: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Prints AUC and log-loss of each predictor, the best of a column in bold."""
    table = Table(title=title, title_justify="left")
    table.add_column("predictor")
    best = {}
    for measure, choose in (("AUC", max), ("log-loss", min)):
        table.add_column(measure, justify="right")
        best[measure] = choose(row[measure] for row in results.values())
    for name, row in results.items():
        cells = [f"[bold green]{row[m]:.4f}[/]" if row[m] == best[m] else f"{row[m]:.4f}" for m in best]
        table.add_row(name, *cells)
    console.print(table)


class TrainingBar(keras.callbacks.Callback):
    """A bar over the steps of an epoch, and a line with its metrics once it is over.

    Args:
        console: where they go.
        metrics: name to print -> key in Keras' logs.
    """

    def __init__(self, console: Console, metrics: Mapping[str, str]):
        super().__init__()
        self._console, self._metrics = console, dict(metrics)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._task = self._progress.add_task("", total=self.params["steps"])
        self._progress.start()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._progress.stop()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.reset(self._task, description=f"epoch {epoch + 1}")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = "   ".join(f"{name} {logs[key]:.4f}" for name, key in self._metrics.items())
        self._console.print(f"epoch {epoch + 1:>2}   {values}", highlight=False)


def draw_learning_curve(
    path: str | os.PathLike,
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    baseline: Mapping[str, float],
    chosen_epoch: int,
    title: str,
) -> None:
    """Draws one panel a measure, with a curve for train and valid, the baseline on valid, and the epoch that was kept.

    Args:
        path: of the PNG that is written.
        curves: measure -> part ("train", "valid") -> its value after each epoch.
        baseline: measure -> its value on valid.
        chosen_epoch: counted from 1.
        title: of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
    }
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(1, len(curves), figsize=(5.2 * len(curves), 4), layout="constrained")
        for panel, (measure, parts) in zip(panels, curves.items(), strict=True):
            for (part, values), color in zip(parts.items(), (BLUE, ORANGE), strict=True):
                epochs = range(1, len(values) + 1)
                panel.plot(epochs, values, marker="o", markersize=4, linewidth=2, color=color, label=part)
            panel.axhline(baseline[measure], color=GREY, linestyle="--", label="user + movie bias, on valid")
            panel.axvline(chosen_epoch, color=GREY, linewidth=6, alpha=0.2, label="epoch kept")
            panel.set(xlabel="epoch", title=measure)
            panel.xaxis.get_major_locator().set_params(integer=True)
        panels[-1].legend(frameon=False, loc="lower right")
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        figure.savefig(path, dpi=150)
        pyplot.close(figure)
