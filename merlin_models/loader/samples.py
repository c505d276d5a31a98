"""One batch of a loader, or of what a loader is made from."""

from __future__ import annotations

from typing import Any

from merlin_models.loader.tensors import flatten_features


def sample_batch(
    loader_or_path: Any,
    batch_size: int | None = None,
    shuffle: bool = False,
    include_targets: bool = True,
    prepare_features: bool = True,
    **loader_arguments: Any,
) -> Any:
    """One batch, for building a model or for looking at the data; a loader given here isn't advanced.

    Args:
        loader_or_path: a `KerasSequenceLoader` (its functions from `map` apply), or whatever one is made
            from: a data set, a table, a path.
        batch_size: rows of the batch; a loader's own batch size by default.
        shuffle: whether the rows are taken at random instead of from the beginning.
        include_targets: whether the labels come with the features, where there are labels.
        prepare_features: True: features as a model takes them, scalars as (batch, 1) and lists as ragged
            tensors. False: scalars as (batch,), and a ragged column as `<name>__values` and
            `<name>__offsets`.
        **loader_arguments: further arguments for `KerasSequenceLoader`, where a path or data set was given.

    Returns:
        (features, labels), or only the features.

    Raises:
        ValueError: no `batch_size` for a path, arguments for a loader that exists already, or no rows.

    Example:
        >>> import pyarrow as pa
        >>> from merlin_models.loader.tensorflow import sample_batch
        >>> table = pa.table({"item": [3, 1, 2], "clicked": [1, 0, 1]})
        >>> features = sample_batch(table, batch_size=2, label_names=["clicked"], include_targets=False)
        >>> features["item"].numpy().tolist()
        [[3], [1]]
    """
    from merlin_models.loader.tensorflow import KerasSequenceLoader  # which has this function among its names

    if isinstance(loader_or_path, KerasSequenceLoader):
        if loader_arguments:
            raise ValueError(f"A loader takes no further arguments. Received: {sorted(loader_arguments)}.")
        loader = loader_or_path._resized(loader_or_path.batch_size if batch_size is None else batch_size)
    elif batch_size is None:
        raise ValueError("batch_size must be given unless a loader is. Received: None.")
    else:
        loader = KerasSequenceLoader(loader_or_path, batch_size, shuffle=shuffle, **loader_arguments)
    batch = loader._first_batch(loader._draw(shuffle))
    features, *rest = batch if isinstance(batch, tuple) else (batch,)
    if not prepare_features:
        lists = {plan.name for plan in loader._selection.plans if plan.is_list}
        features = flatten_features(features, lists)
    return (features, *rest) if rest and include_targets else features
