"""Evaluation on a loader after each epoch."""

from __future__ import annotations

from typing import Any

import keras


class KerasSequenceValidater(keras.callbacks.Callback):
    """Evaluates the model on a loader after each epoch and adds the results to the logs as `val_<name>`.

    Args:
        dataloader: a `KerasSequenceLoader`, or anything else that `model.evaluate` takes.
        verbose: passed to `model.evaluate`.
        pre: passed to the `evaluate` of a `merlin_models` model, such as a transform of sequences; None for none.

    Example:
        >>> import pandas as pd, merlin_models.tf as ml
        >>> rows = pd.DataFrame({"movieId": [1, 2, 3, 4], "liked": [0, 1, 0, 1]})
        >>> names = {"cat_names": ["movieId"], "label_names": ["liked"]}
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("movieId", 9)])
        >>> model = ml.Model(ml.InputBlock(schema), ml.BinaryClassificationTask("liked"))
        >>> model.compile("adam")
        >>> validator = ml.KerasSequenceValidator(ml.Loader(rows, 2, **names))
        >>> "val_loss" in model.fit(ml.Loader(rows, 2, **names), verbose=0, callbacks=[validator]).history
        True
    """

    def __init__(self, dataloader: Any, verbose: int = 0, pre: Any = None):
        super().__init__()
        self.dataloader = dataloader
        self.verbose = verbose
        self.pre = pre

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        options = {} if self.pre is None else {"pre": self.pre}
        results = self.model.evaluate(self.dataloader, return_dict=True, verbose=self.verbose, **options)
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in results.items()})


KerasSequenceValidator = KerasSequenceValidater
