"""RetrievalModel: queries and items, what the loss of a model is, and what it recommends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.combinators import ParallelBlock, SequentialBlock
from merlin_models.models.arguments import targets_among
from merlin_models.models.batches import Batch, id_column
from merlin_models.models.encoder import Encoder
from merlin_models.models.model import Model
from merlin_models.models.top_k_encoder import TopKEncoder, check_reach, furthest, results_of
from merlin_models.schema import Schema, Tags
from merlin_models.tasks import ItemRetrievalTask, SampledSoftmaxTask, TaskStep
from merlin_models.tasks.rows import update_from_rank


@register
class RetrievalModel(Model):
    """A model that finds items for queries: two towers and an ``ItemRetrievalTask``, or a body and a ``SampledSoftmaxTask``.

    ``connect`` makes one where such a task is the last block.

    Args:
        *blocks: a block with the two towers as branches, layers that take the dictionary of their vectors or of one of them
            (``L2Norm``), and an ``ItemRetrievalTask``; or any blocks and a ``SampledSoftmaxTask``.

    Raises:
        ValueError: for other blocks.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> model = ml.TwoTowerModel(ml.Schema([user, movie]), query_tower=ml.MLPBlock([32, 16]))
        >>> model.compile(optimizer="adam")
        >>> rows = {"userId": np.arange(1, 9), "movieId": np.arange(11, 19)}
        >>> _ = model.fit(rows, verbose=0)
        >>> catalogue = {"movieId": np.arange(1, 1001)}
        >>> sorted(model.evaluate(rows, item_corpus=catalogue, return_dict=True))[:1]
        ['item_retrieval_task/map_at_10']
        >>> recommender = model.to_top_k_encoder(catalogue)
        >>> recommender.recommend(np.array([1, 2]), k=3, exclude_seen=rows).identifiers.shape
        (2, 3)
    """

    def __init__(self, *blocks: keras.layers.Layer, name: str | None = None, **kwargs: Any):
        if not blocks or not is_retrieval(blocks):
            raise ValueError(
                "A retrieval model must be two towers, as branches of its first block, and an ItemRetrievalTask that takes "
                f"these, or end in a SampledSoftmaxTask. Received: {[getattr(block, 'name', block) for block in blocks]}"
            )
        super().__init__(*blocks, name=name, **kwargs)
        task = self._task()
        if isinstance(task, ItemRetrievalTask):
            task.set_item_tower(_flat(self.blocks)[0][task.item_name])

    def _task(self) -> ItemRetrievalTask | SampledSoftmaxTask:
        return self.prediction_tasks[0]

    # ---- its encoders ----

    def to_query_encoder(self) -> Encoder:
        """A model from a query's features to its vector; its weights are this model's."""
        if isinstance(self._task(), SampledSoftmaxTask):
            return Encoder(*list(self.blocks)[:-1], *self._task().vector_layers, name="query_encoder")
        return self._tower_encoder(self._task().query_name)

    def to_item_encoder(self) -> Encoder:
        """A model from an item's features to its vector; its weights are this model's.

        Raises:
            ValueError: if items are rows of a table.
        """
        if isinstance(self._task(), SampledSoftmaxTask):
            raise ValueError(
                "The items of this model are the rows of a table, without an encoder: see item_embeddings()."
            )
        return self._tower_encoder(self._task().item_name)

    def _tower_encoder(self, name: str) -> Encoder:
        towers, *between = _flat(self.blocks)[:-1]
        shared = [OnOne(layer, name) for layer in (towers.post, *between) if layer is not None]
        return Encoder(towers[name], *shared, *self._task().vector_layers, name=f"{name}_encoder")

    def query_embeddings(self, dataset: Any, index: Any = None, batch_size: int = 1024) -> Any:
        """The vectors of queries, as a DataFrame by their ids.

        Args:
            dataset, batch_size: as of ``Encoder.encode``.
            index: the column of ids, a name or a tag; that tagged ``user_id`` if None.
        """
        encoder = self.to_query_encoder()
        return encoder.encode(dataset, id_column(encoder.schema, index, Tags.USER_ID), batch_size)

    def item_embeddings(self, dataset: Any = None, index: Any = None, batch_size: int = 1024) -> Any:
        """The vectors of items, as a DataFrame by their ids.

        Args:
            dataset, batch_size: as of ``Encoder.encode``. None where items are rows of a table.
            index: the column of ids, a name or a tag; that tagged ``item_id`` if None.
        """
        if isinstance(self._task(), SampledSoftmaxTask):
            import pandas

            if dataset is not None:
                raise ValueError("dataset must be None where items are rows of a table. Received a data set")
            ids, vectors = (np.asarray(each) for each in self._task().item_vectors())
            columns = [str(dim) for dim in range(vectors.shape[1])]
            return pandas.DataFrame(vectors.astype(np.float32), pandas.Index(ids, name="id"), columns)
        encoder = self.to_item_encoder()
        return encoder.encode(dataset, id_column(encoder.schema, index, Tags.ITEM_ID), batch_size)

    # ---- recommending ----

    def to_top_k_encoder(
        self,
        candidates: Any = None,
        candidate_id: str | Tags | None = None,
        strategy: str | keras.layers.Layer = "brute-force-topk",
        k: int = 10,
        batch_size: int = 1024,
    ) -> TopKEncoder:
        """A model that recommends from a catalogue.

        Args:
            candidates: features of the items, one row an item, in any form that ``Encoder.encode`` takes. None where items
                are rows of a table.
            candidate_id: the column of their ids; the task's ``item_id_name``, or that tagged ``item_id``, if None.
            strategy: of the search, see :class:`TopKEncoder`.
            k: how many items a query gets.
            batch_size: items that are encoded at once.
        """
        query, name = self.to_query_encoder(), candidate_id
        if isinstance(self._task(), SampledSoftmaxTask):
            if candidates is not None:
                raise ValueError("candidates must be None where items are rows of a table. Received a data set")
            encoder = TopKEncoder(query, strategy, k=k, candidate_id=name or "id")
            ids, vectors = self._task().item_vectors()
            return encoder.index_candidates(vectors, ids)
        if candidates is None:
            raise ValueError("candidates must be the features of the items. Received: None")
        name = name or self._task().item_id_name or Tags.ITEM_ID
        encoder = TopKEncoder(query, strategy, candidate_encoder=self.to_item_encoder(), k=k, candidate_id=name)
        return encoder.index_candidates(candidates, batch_size=batch_size)

    def to_top_k_recommender(self, item_corpus: Any = None, k: int = 10, **kwargs: Any) -> TopKEncoder:
        """The name of :meth:`to_top_k_encoder` in earlier versions of Merlin Models."""
        return self.to_top_k_encoder(item_corpus, k=k, **kwargs)

    # ---- evaluating ----

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        return_dict: bool = False,
        item_corpus: Any = None,
        exclude_seen: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Losses and in-batch metrics as of ``keras.Model.evaluate``; with ``item_corpus``, metrics of the whole catalogue.

        Args:
            x, y, batch_size, verbose, sample_weight, return_dict, **kwargs: as of Keras.
            item_corpus: features of all items, one row an item, or a ``TopKEncoder`` that has them: then the compiled ranking
                metrics are those of each row's item among all of these. There is no loss then. Rows whose item is not among
                them count as misses; a UserWarning tells how many.
            exclude_seen: with ``item_corpus`` only; see ``TopKEncoder.recommend``. A row's own item is never excluded for
                that row, so the rows themselves may be among the interactions.

        Raises:
            ValueError: for ``exclude_seen`` without ``item_corpus``; for targets or weights of the wrong shape.
        """
        if item_corpus is None:
            if exclude_seen is not None:
                raise ValueError("exclude_seen must be None without item_corpus. Received interactions")
            options = {"batch_size": batch_size, "verbose": verbose, "sample_weight": sample_weight, **kwargs}
            return super().evaluate(x, y, return_dict=return_dict, **options)
        if self._objective is None:
            raise ValueError("compile() must be called before evaluate().")
        plain, weighted = self._objective.metrics_of(self._task())
        recommender = item_corpus
        if not isinstance(item_corpus, TopKEncoder):
            recommender = self.to_top_k_encoder(item_corpus, k=max(furthest([*plain, *weighted]), 1))
        check_reach([*plain, *weighted], recommender.k)
        self.reset_metrics()
        task = self._task()

        def truth_of(batch: Batch) -> Any:
            targets = targets_among(batch.features, [task], self.schema) if batch.targets is None else batch.targets
            step = TaskStep(batch.features, self.schema, targets, None, batch.sample_weight, False)
            return task.ids_and_weights(step)

        found = recommender.ranks(
            x, truth_of, exclude_seen, batch_size or 1024, y, sample_weight, also=self._columns_of_truth()
        )
        for rank, counted, weights in found:
            update_from_rank(plain, rank, counted)
            update_from_rank(weighted, rank, weights)
        results = results_of([*plain, *weighted])
        self.reset_metrics()
        return results if return_dict else list(results.values())

    def _columns_of_truth(self) -> list[str]:
        """What tells a row's own item, in data that are read by the names of columns."""
        task, schema = self._task(), self.schema or Schema()
        if isinstance(task, ItemRetrievalTask):
            name = task.item_id_name or schema.item_id_column_name
        else:
            name = None if task.target_name in schema else task.target_name
        return [] if name is None else [name]


@register
class OnOne(Block):
    """A layer for a dictionary of vectors, on one of them by itself.

    Args:
        layer: takes and returns dictionaries, and does the same with each entry.
        key: of the entry.
    """

    def __init__(self, layer: keras.layers.Layer, key: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.layer, self.key = layer, key

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.layer({self.key: inputs})[self.key]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer), "key": self.key}


def model_of(*blocks: keras.layers.Layer, **kwargs: Any) -> Model:
    """A RetrievalModel where the blocks make one, else a Model."""
    return RetrievalModel(*blocks, **kwargs) if is_retrieval(blocks) else Model(*blocks, **kwargs)


def is_retrieval(blocks: Sequence[keras.layers.Layer]) -> bool:
    """Whether blocks are two towers and the task that takes their vectors, or end in a softmax over an item table."""
    task, first = blocks[-1], _flat(blocks)[0]
    if isinstance(task, SampledSoftmaxTask):
        return len(blocks) > 1
    if not isinstance(task, ItemRetrievalTask) or not isinstance(first, ParallelBlock):
        return False
    return {task.query_name, task.item_name} <= set(first) and first.pre is None and first.aggregation is None


def _flat(blocks: Sequence[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """The blocks, with the layers of sequences in the place of these."""
    flat: list[keras.layers.Layer] = []
    for block in blocks:
        flat += _flat(block.layers) if type(block) is SequentialBlock else [block]
    return flat
