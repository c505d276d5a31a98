"""Evaluation on a loader after each epoch."""

from __future__ import annotations

from typing import Any

import keras


class KerasSequenceValidater(keras.callbacks.Callback):
    """Evaluates the model on a loader after each epoch and adds the results to the logs as `val_<name>`.

    Args:
        dataloader: a `KerasSequenceLoader`, or anything else that `model.evaluate` takes.
        verbose: passed to `model.evaluate`.
    """

    def __init__(self, dataloader: Any, verbose: int = 0):
        super().__init__()
        self.dataloader = dataloader
        self.verbose = verbose

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        results = self.model.evaluate(self.dataloader, return_dict=True, verbose=self.verbose)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in results.items()})


KerasSequenceValidator = KerasSequenceValidater
