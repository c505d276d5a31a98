"""Negatives: the candidates that a batch's items are told from, by one or several samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.samplers import (
    CachedCrossBatchSampler,
    CachedUniformSampler,
    Candidates,
    InBatchSampler,
    as_sampler,
)
from merlin_models.schema import ColumnSchema


class Pool(NamedTuple):
    """The arguments of :func:`merlin_models.ops.inbatch_softmax` that samplers give.

    Attributes:
        candidates: (candidates, dim).
        positives: (batch, dim), or None where they are the first candidates.
        positive_ids, candidate_ids: (batch,) and (candidates,) int64, or None where all are different.
        positive_log_q, candidate_log_q: of the same shapes, float32, or None.
    """

    candidates: Any
    positives: Any = None
    positive_ids: Any = None
    candidate_ids: Any = None
    positive_log_q: Any = None
    candidate_log_q: Any = None


@register
class Negatives(keras.layers.Layer):
    """Puts the candidates of several samplers into one pool, with the logarithms of how often they are sampled.

    With ``logq_correction`` the scores of an item, positive or not, are lowered by the logarithm of the expected number of
    times that it is among the candidates: the sum of what is expected of each sampler (the balance heuristic). Of the batch
    that is what ``PopularityLogitsCorrection`` or the ``item_frequency`` of ``InBatchSampler`` say; of a cross-batch cache
    as many times more as it has more rows than the batch; of a uniform cache 1; of samplers that draw ids their own
    ``log_q(ids)``.

    Args:
        samplers: item samplers, their classes or names; "in-batch" if there is none.
        logq_correction: whether scores are corrected in training; or a ``PopularityLogitsCorrection`` with the frequencies of
            items, where samplers do not know them.
        downscore_false_negatives: whether candidates with the id of a row's positive are no negatives of it, or count like
            any other.

    Call arguments:
        positives: (batch, dim), the batch's items.
        ids: (batch,) int64, or None, which only the items of the batch can do without.
        encode: a function from ids (items,) to vectors (items, dim), for samplers of ids that have no ``item_encoder``.
        finish: a function from an item encoder's vectors to those that scores are products of.
        training: whether caches take the batch up, and scores are corrected.

    Returns:
        :class:`Pool`.

    Raises:
        ValueError: if a sampler needs ids and there are none, or does not know what it is asked for.
    """

    def __init__(
        self,
        samplers: Sequence[Any] = (),
        logq_correction: Any = False,
        downscore_false_negatives: bool = True,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(downscore_false_negatives, bool):
            raise TypeError(f"downscore_false_negatives must be a bool. Received: {downscore_false_negatives!r}")
        self.downscore_false_negatives = downscore_false_negatives
        samplers = list(samplers) if isinstance(samplers, list | tuple) else [samplers]
        made = [as_sampler(sampler) for sampler in samplers or ["in-batch"]]
        if not isinstance(logq_correction, bool) and not hasattr(logq_correction, "log_q"):
            raise TypeError(
                f"logq_correction must be a bool or a PopularityLogitsCorrection. Received: {logq_correction!r}"
            )
        in_batch = [sampler for sampler in made if isinstance(sampler, InBatchSampler)]
        if len(in_batch) > 1:
            raise ValueError(f"samplers must have at most one InBatchSampler. Received: {len(in_batch)}")
        self.item_frequency = in_batch[0].item_frequency if in_batch else None
        if self.item_frequency is not None and logq_correction is not True:
            raise ValueError(
                "logq_correction must be True where an InBatchSampler has an item_frequency. "
                f"Received: {logq_correction}"
            )
        # The items of the batch come first: then they need not be passed twice.
        self.samplers = [*in_batch, *(sampler for sampler in made if sampler not in in_batch)]
        self.logq_correction = logq_correction
        unknown = [sampler.name for sampler in self.samplers if not self._is_known(sampler)]
        if logq_correction is not False and unknown:
            raise ValueError(
                "logq_correction must be a PopularityLogitsCorrection, or an InBatchSampler must have an item_frequency, for "
                f"samplers that do not know how often they give an item. Received: {logq_correction} for {unknown}"
            )

    def _is_known(self, sampler: Any) -> bool:
        """Whether it can be told how often the sampler gives an item."""
        if isinstance(sampler, InBatchSampler | CachedCrossBatchSampler):
            return self.item_frequency is not None or not isinstance(self.logq_correction, bool)
        return isinstance(sampler, CachedUniformSampler) or hasattr(sampler, "log_q")

    def check_frequencies(self, column: ColumnSchema) -> None:
        """Raises ValueError if the ids of a column are more than those whose frequencies are given: a GPU would read on."""
        known = getattr(self.logq_correction, "log_probabilities", None)
        if known is None or column.int_domain is None or known.shape[0] >= column.cardinality:
            return
        raise ValueError(
            f"logq_correction must have a frequency for each of the {column.cardinality} ids of '{column.name}', from 0 on. "
            f"Received: {known.shape[0]}"
        )

    @property
    def only_in_batch(self) -> bool:
        return len(self.samplers) == 1 and isinstance(self.samplers[0], InBatchSampler)

    def build_from(self, vectors: keras.KerasTensor) -> None:
        """Builds the samplers and the correction, which Keras cannot do from shapes: ids are integers."""
        ids = keras.KerasTensor((None,), "int64")
        for sampler in self.samplers:
            if not hasattr(sampler, "sample_ids"):
                sampler(vectors, ids, training=False)
                continue
            if isinstance(sampler.item_encoder, keras.layers.Layer):
                sampler.item_encoder(ids)
            sampler.built = True
        self.built = True

    def call(
        self,
        positives: Any,
        ids: Any = None,
        encode: Callable[[Any], Any] | None = None,
        finish: Callable[[Any], Any] | None = None,
        training: bool | None = None,
    ) -> Pool:
        if ids is None:
            if self.only_in_batch and self.logq_correction is False:
                return Pool(positives)
            raise ValueError(
                "The items' ids must be known for these samplers and logq_correction: the model's schema must have a feature "
                f"tagged item_id, or item_id_name must name one. Received: {[s.name for s in self.samplers]}"
            )
        parts = [self._sample(sampler, positives, ids, encode, finish, training) for sampler in self.samplers]
        in_batch = isinstance(self.samplers[0], InBatchSampler)
        all_ids = _joined([part.ids for part in parts])
        own = of_all = None
        if training and self.logq_correction is not False:
            rows = [ops.shape(part.ids)[0] for part in parts]
            of_all = self._log_q(all_ids, ops.shape(ids)[0], rows)
            own = of_all[: ops.shape(ids)[0]] if in_batch else self._log_q(ids, ops.shape(ids)[0], rows)
        candidates = _joined([ops.cast(part.embeddings, positives.dtype) for part in parts])
        if not self.downscore_false_negatives:
            ids = all_ids = None
        return Pool(candidates, None if in_batch else positives, ids, all_ids, own, of_all)

    def _sample(self, sampler: Any, positives: Any, ids: Any, encode: Any, finish: Any, training: Any) -> Candidates:
        if not hasattr(sampler, "sample_ids"):
            return sampler(positives, ids, training=training)
        if sampler.item_encoder is not None:
            found = sampler(positives, ids, training=training)
        elif encode is not None:
            drawn, log_q = sampler.sample_ids()
            found = Candidates(encode(drawn), drawn, log_q)
        else:
            raise ValueError(
                f"item_encoder of {sampler.name} must be given where the item tower cannot do it: it must read one feature, "
                "the items' id."
            )
        return found if finish is None else found._replace(embeddings=finish(found.embeddings))

    def _log_q(self, ids: Any, batch: Any, rows: list[Any]) -> Any:
        """The logarithm of how often ids (items,) are expected among all candidates, of which a sampler gave ``rows``."""
        in_a_batch = None
        if self.item_frequency is not None:
            in_a_batch = self.item_frequency(ids, training=False)
        elif not isinstance(self.logq_correction, bool):
            in_a_batch = self.logq_correction.log_q(ids) + _log(batch)
        each = []
        for sampler, count in zip(self.samplers, rows, strict=True):
            if isinstance(sampler, InBatchSampler):
                each.append(in_a_batch)
            elif isinstance(sampler, CachedCrossBatchSampler):
                each.append(in_a_batch + _log(count) - _log(batch))
            elif isinstance(sampler, CachedUniformSampler):
                each.append(ops.zeros_like(ids, dtype="float32"))
            else:
                each.append(sampler.log_q(ids))
        return each[0] if len(each) == 1 else ops.logsumexp(ops.stack(each), axis=0)

    def get_config(self) -> dict[str, Any]:
        correction = self.logq_correction
        if isinstance(correction, keras.layers.Layer):
            correction = keras.saving.serialize_keras_object(correction)
        samplers = [keras.saving.serialize_keras_object(sampler) for sampler in self.samplers]
        return {
            **super().get_config(),
            "samplers": samplers,
            "logq_correction": correction,
            "downscore_false_negatives": self.downscore_false_negatives,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Negatives:
        return cls(**keras.saving.deserialize_keras_object(dict(config)))


def _log(count: Any) -> Any:
    return ops.log(ops.cast(ops.maximum(count, 1), "float32"))


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)
