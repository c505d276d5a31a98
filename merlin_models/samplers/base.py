"""ItemSampler: a layer that gives a batch of items its negatives."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import keras
from keras import ops

from merlin_models.blocks.registry import Registry
from merlin_models.blocks.symbolic import rank_of

SAMPLERS = Registry("sampler")


class Candidates(NamedTuple):
    """Items to be told from the positive ones.

    Attributes:
        embeddings: (items, dim).
        ids: (items,) int64.
        log_q: (items,) float32, the logarithm of the expected number of times that the sampler gives the item, to be
            subtracted from its logits; None where the sampler does not know it.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> candidates = ml.InBatchSampler()(np.ones((3, 2), "float32"), np.array([7, 8, 9]))
        >>> candidates.ids.numpy().tolist(), candidates.log_q is None
        ([7, 8, 9], True)
    """

    embeddings: Any
    ids: Any
    log_q: Any = None


# The name in Merlin Models.
EmbeddingWithMetadata = Candidates


class ItemSampler(keras.layers.Layer):
    """Gives negatives to a batch of positive items.

    Subclasses write ``sample_for``.

    Call arguments:
        embeddings: (batch, dim), of the batch's items.
        ids: (batch,) or (batch, 1), integers: theirs.
        training: whether caches take the batch up.

    Returns:
        :class:`Candidates`.

    Raises:
        ValueError: if the shapes differ from these.
        TypeError: if ids are not integers.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> sampler = ml.CachedCrossBatchSampler(capacity=4)
        >>> for first in (1, 3):
        ...     candidates = sampler(np.ones((2, 8), "float32"), np.array([first, first + 1]), training=True)
        >>> candidates.ids.numpy().tolist()  # of the batch before
        [1, 2]
    """

    def call(self, embeddings: Any, ids: Any, training: bool | None = None) -> Candidates:
        ids = as_ids(ids)
        shapes = tuple(embeddings.shape), tuple(ids.shape)
        if len(shapes[0]) != 2 or (None not in (shapes[0][0], shapes[1][0]) and shapes[0][0] != shapes[1][0]):
            raise ValueError(
                "embeddings must have the shape (batch, dim) and ids (batch,), of one batch size. "
                f"Received: {shapes[0]} and {shapes[1]}"
            )
        return self.sample_for(embeddings, ids, bool(training))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        candidates = super().compute_output_spec(*args, **kwargs)
        if candidates.log_q is not None:
            return candidates
        # Keras wants a tensor in each place of a symbolic output.
        return candidates._replace(log_q=keras.KerasTensor(candidates.ids.shape, "float32"))

    def sample_for(self, embeddings: Any, ids: Any, training: bool) -> Candidates:
        """The candidates for a batch of embeddings (batch, dim) and ids (batch,) int64."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_for().")


def as_ids(ids: Any) -> Any:
    """Identifiers as (items,) int64.

    Raises:
        ValueError: if the shape is neither (items,) nor (items, 1).
        TypeError: if they are not integers.
    """
    ids = as_int64(ids)
    if rank_of(ids) not in (None, 1) and (rank_of(ids) != 2 or ids.shape[-1] != 1):
        raise ValueError(f"ids must have the shape (items,) or (items, 1). Received: {tuple(ids.shape)}")
    return ops.reshape(ids, (-1,))


def as_int64(ids: Any, name: str = "ids") -> Any:
    """Integers of any shape as int64.

    Raises:
        TypeError: for another kind of numbers, of which large ones may be rounded already.
    """
    ids = ops.convert_to_tensor(ids)
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if "int" not in dtype:
        raise TypeError(f"{name} must be integers. Received dtype: {dtype}")
    return ops.cast(ids, "int64")


def as_sampler(sampler: Any) -> ItemSampler:
    """A sampler from an object, a class or a name such as "in-batch".

    Raises:
        TypeError: for anything else.
        KeyError: for an unknown name.

    Example:
        >>> from merlin_models.samplers import as_sampler
        >>> type(as_sampler("in-batch")).__name__
        'InBatchSampler'
    """
    if isinstance(sampler, str):
        sampler = SAMPLERS.get(sampler)
    if inspect.isclass(sampler) and issubclass(sampler, ItemSampler):
        sampler = sampler()
    if not isinstance(sampler, ItemSampler):
        raise TypeError(f"A sampler must be an ItemSampler, its class or its name. Received: {sampler!r}")
    return sampler
