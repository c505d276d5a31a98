"""Samplers that give items of earlier batches: CachedCrossBatchSampler and CachedUniformSampler."""

from __future__ import annotations

from typing import Any

from keras import ops

from merlin_models.blocks.base import register
from merlin_models.layers.fifo_queue import FIFOQueue
from merlin_models.samplers.base import Candidates, ItemSampler, as_ids


class _CachedSampler(ItemSampler):
    """Takes batches up while training, and gives what it has taken up.

    Args:
        capacity: the largest number of cached items.
        ignore_last_batch_on_sample: whether a batch is answered before it is taken up.
    """

    def __init__(self, capacity: int, ignore_last_batch_on_sample: bool, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(capacity, int) or capacity < 1:
            raise ValueError(f"capacity must be at least 1. Received: {capacity}")
        self.capacity, self.ignore_last_batch_on_sample = capacity, bool(ignore_last_batch_on_sample)
        self.supports_jit = False  # the number of candidates grows until the cache is full

    def sample_for(self, embeddings: Any, ids: Any, training: bool) -> Candidates:
        if training and not self.ignore_last_batch_on_sample:
            self.add(embeddings, ids)
        candidates = self.sample()
        if training and self.ignore_last_batch_on_sample:
            self.add(embeddings, ids)
        return candidates

    def add(self, embeddings: Any, ids: Any) -> None:
        """Takes items up: embeddings (items, dim) and ids (items,)."""
        raise NotImplementedError(f"{type(self).__name__} must define add().")

    def sample(self) -> Candidates:
        """All cached items, without gradient.

        Raises:
            RuntimeError: before the first call of the layer.
        """
        raise NotImplementedError(f"{type(self).__name__} must define sample().")

    def _check_built(self) -> None:
        if not self.built:
            raise RuntimeError(f"The layer was not built yet: call {type(self).__name__} on a batch first.")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "capacity": self.capacity,
            "ignore_last_batch_on_sample": self.ignore_last_batch_on_sample,
        }


@register
class CachedCrossBatchSampler(_CachedSampler):
    """The items of the last batches, as they were embedded then.

    Items are kept in the order of their arrival, each time that they occur; no gradient passes to them.

    Args:
        capacity: how many items are kept.
        ignore_last_batch_on_sample: whether a batch gets only items of earlier ones. The first one gets none then.

    Call arguments:
        embeddings, ids, training: as of :class:`ItemSampler`.

    Returns:
        :class:`Candidates`: (items, dim) and (items,) int64, at most ``capacity`` of them.

    Example:
        >>> import numpy as np
        >>> import merlin_models.tf as ml
        >>> sampler = ml.CachedCrossBatchSampler(capacity=3)
        >>> items = np.ones((2, 8), "float32")
        >>> [sampler(items, np.array(ids), training=True).ids.numpy().tolist() for ids in ([1, 2], [2, 3], [4, 5])]
        [[], [1, 2], [2, 2, 3]]

    Reference:
        Wang et al., Cross-Batch Negative Sampling for Training Two-Tower Recommenders, 2021,
        https://arxiv.org/abs/2110.15154
    """

    def __init__(self, capacity: int, ignore_last_batch_on_sample: bool = True, **kwargs: Any):
        super().__init__(capacity, ignore_last_batch_on_sample, **kwargs)

    def build(self, embeddings_shape: Any, ids_shape: Any) -> None:
        self.embeddings = FIFOQueue(self.capacity, (embeddings_shape[-1],), self.compute_dtype)
        self.ids = FIFOQueue(self.capacity, dtype="int64")

    def add(self, embeddings: Any, ids: Any) -> None:
        self._check_built()
        self.embeddings.enqueue_many(ops.stop_gradient(embeddings))
        self.ids.enqueue_many(as_ids(ids))

    def sample(self) -> Candidates:
        self._check_built()
        return Candidates(self.embeddings.list_all(), self.ids.list_all())


@register
class CachedUniformSampler(_CachedSampler):
    """The items of earlier batches, each once, with their newest embedding.

    Popular items are as often among the negatives as rare ones. Where the cache is full, the items that came first to it make
    room for new ones; no gradient passes.

    Args:
        capacity: how many items are kept.
        ignore_last_batch_on_sample: whether a batch gets only items of earlier ones.

    Call arguments:
        embeddings, ids, training: as of :class:`ItemSampler`.

    Returns:
        :class:`Candidates`: (items, dim) and (items,) int64, at most ``capacity`` of them.

    Example:
        >>> import numpy as np
        >>> import merlin_models.tf as ml
        >>> sampler = ml.CachedUniformSampler(capacity=3)
        >>> items = np.ones((2, 8), "float32")
        >>> [sampler(items, np.array(ids), training=True).ids.numpy().tolist() for ids in ([1, 2], [2, 3], [2, 4])]
        [[1, 2], [1, 2, 3], [2, 3, 4]]

    Reference:
        Yang et al., Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations, 2020,
        https://doi.org/10.1145/3366424.3386195
    """

    def __init__(self, capacity: int, ignore_last_batch_on_sample: bool = False, **kwargs: Any):
        super().__init__(capacity, ignore_last_batch_on_sample, **kwargs)

    def build(self, embeddings_shape: Any, ids_shape: Any) -> None:
        options = {"initializer": "zeros", "trainable": False, "autocast": False}
        shape = (self.capacity, embeddings_shape[-1])
        self.embeddings = self.add_weight(name="embeddings", shape=shape, dtype=self.compute_dtype, **options)
        self.ids = self.add_weight(name="ids", shape=(self.capacity,), dtype="int64", **options)
        self.count = self.add_weight(name="count", shape=(), dtype="int64", **options)

    def add(self, embeddings: Any, ids: Any) -> None:
        self._check_built()
        cached = self.sample()
        embeddings = ops.cast(ops.stop_gradient(embeddings), self.compute_dtype)
        all_embeddings = ops.concatenate([cached.embeddings, embeddings], axis=0)
        all_ids = ops.concatenate([cached.ids, as_ids(ids)], axis=0)
        newest = _newest_places(all_ids)[-self.capacity :]
        unused = ops.cast(self.capacity, "int64") - ops.cast(ops.shape(newest)[0], "int64")
        kept_ids, kept_embeddings = ops.take(all_ids, newest, axis=0), ops.take(all_embeddings, newest, axis=0)
        blank = ops.zeros((unused, self.embeddings.shape[1]), dtype=self.compute_dtype)
        self.ids.assign(ops.concatenate([kept_ids, ops.zeros((unused,), dtype="int64")], axis=0))
        self.embeddings.assign(ops.concatenate([kept_embeddings, blank], axis=0))
        self.count.assign(self.capacity - unused)

    def sample(self) -> Candidates:
        self._check_built()
        used = ops.arange(self.count, dtype="int64")
        return Candidates(ops.take(self.embeddings, used, axis=0), ops.take(self.ids, used, axis=0))


def _newest_places(ids: Any) -> Any:
    """Of each id the place where it is last, in the order of where the ids are first."""
    order = ops.argsort(ids)  # keeps the order of equal ids
    ordered = ops.take(ids, order, axis=0)
    changes = ordered[1:] != ordered[:-1]
    edge = ops.ones_like(ordered[:1], dtype="bool")
    first = ops.take(order, ops.nonzero(ops.concatenate([edge, changes], axis=0))[0], axis=0)
    last = ops.take(order, ops.nonzero(ops.concatenate([changes, edge], axis=0))[0], axis=0)
    return ops.take(last, ops.argsort(first), axis=0)
