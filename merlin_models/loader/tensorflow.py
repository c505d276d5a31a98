"""Keras loader: batches of TensorFlow tensors from Parquet files, read ahead on background threads."""

from __future__ import annotations

import copy
import functools
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from merlin_models.loader.columns import Column
from merlin_models.loader.dataset import schema_of
from merlin_models.loader.epochs import Chunk, EpochReader, draw_chunks, shard, warn_without_room
from merlin_models.loader.indexed import IndexedEpoch
from merlin_models.loader.parquet import open_source
from merlin_models.loader.samples import sample_batch
from merlin_models.loader.selection import select_columns
from merlin_models.loader.sizes import part_bytes, require_integer, require_rank
from merlin_models.loader.tensors import device_name, mapped, to_tensor
from merlin_models.loader.validater import KerasSequenceValidater, KerasSequenceValidator

__all__ = ["KerasSequenceLoader", "KerasSequenceValidater", "KerasSequenceValidator", "Loader", "sample_batch"]


class KerasSequenceLoader(keras.utils.PyDataset):
    """Batches of a Parquet data set for `fit`, `evaluate`, `predict` or a plain loop.

    A batch is `(features, labels)`: a dict name -> tensor and one tensor, or for several labels a dict name -> tensor;
    without labels it is the dict of features alone. Scalar columns come as (batch, 1) in the column's own dtype,
    except that float64 becomes float32, columns in `cont_names` become float32, and those in `cat_names` int32 or int64. List
    columns come as `tf.RaggedTensor` (batch, None) with int64 row splits, or padded (see `sparse_as_dense`).

    Every pass draws a new order. `loader[i]` and Keras share one order, which `on_epoch_end` replaces once
    all its batches were handed out; each `iter(loader)` has its own.

    Args:
        paths_or_dataset: path, folder or glob pattern of Parquet files, or a list of them; `pyarrow.Table`;
            `pyarrow.dataset.Dataset`; `pandas.DataFrame`; a generated `Dataset`; `merlin.io.Dataset`.
        batch_size: rows a batch; every batch but the last is full.
        label_names: label columns. Default: columns of `schema` with the tag TARGET, or none.
        feature_columns: names or `tf.feature_column` objects, instead of `cat_names` and `cont_names`.
        cat_names: columns of integers or booleans, which come as int32 or int64: other types as the smaller one that holds
            all their values, uint64 as int64. Default: columns of `schema` with the tag CATEGORICAL that are no labels.
        cont_names: columns that come as float32. Default: columns of `schema` with the tag CONTINUOUS that are no labels.
            Columns with the tag EMBEDDING are features too. Without names and schema all columns but the labels are features.
        engine: None or "parquet".
        shuffle: whether each pass has a new random order of row groups, and of rows within a chunk.
        seed_fn: called once for each pass; its integer (not negative) and the pass's number decide the order.
        buffer_size: memory of a part: a float is a share of the host memory that is available now, an int bytes, a string
            bytes with a unit ("500MB", "2GiB"). Default: 0.1, with `seed` or `seed_fn` "1GB": their orders must not hang on
            what is available, so a share is refused with `seed` and warns with `seed_fn`. A part is as many row groups in
            random order as have room (at least one). Two chunks are in memory at once. Without shuffle a chunk is at most
            64 MiB.
        device: None or "cpu" for host memory, "gpu" or a GPU's number to have tensors copied there. While Keras runs an epoch
            its own input pipeline takes the tensors from host memory, whatever the device.
        parts_per_chunk: parts that are read together as a chunk and mixed row by row when `shuffle` is on.
        reader_kwargs: arguments for `pyarrow.parquet.ParquetFile`, such as {"memory_map": True}.
        global_size: number of processes that share the data; each gets an equal share of rows and the same
            number of batches.
        global_rank: this process's number, from 0.
        drop_last: whether to leave out a last batch that isn't full.
        sparse_names: list columns that `sparse_max` and `sparse_as_dense` are about. Default: those of
            `sparse_max`.
        sparse_max: column -> longest list allowed; a longer one raises ValueError while it is read.
        sparse_as_dense: whether columns in `sparse_names` come as (batch, sparse_max), padded with 0 on the
            right.
        schema: a `merlin_models.schema.Schema` that says which columns are features and labels. Default,
            where no features are named: the one that the data bring, which is a data set's own, or
            schema.pbtxt in a folder.
        seed: makes the order of all passes reproducible, given the same rows and row groups, columns, `buffer_size`,
            `parts_per_chunk` and share; not together with `seed_fn`.

    Raises:
        FileNotFoundError: no file at a path.
        TypeError: `paths_or_dataset` is of no known kind.
        ValueError: any other argument is unfit; while reading, a column with nulls, a list that is too long,
            or ids from 2**63.

    Example:
        >>> import pyarrow as pa
        >>> from merlin_models.loader.tensorflow import KerasSequenceLoader
        >>> table = pa.table({"item": [3, 1, 2], "genres": [[1, 2], [], [5]], "clicked": [1, 0, 1]})
        >>> loader = KerasSequenceLoader(table, batch_size=2, label_names=["clicked"], shuffle=False)
        >>> features, labels = loader.peek()
        >>> features["item"].numpy().tolist(), features["genres"].to_list(), labels.numpy().tolist()
        ([[3], [1]], [[1, 2], []], [[1], [0]])
    """

    def __init__(
        self,
        paths_or_dataset: Any,
        batch_size: int,
        label_names: Sequence[str] | None = None,
        feature_columns: Sequence[Any] | None = None,
        cat_names: Sequence[str] | None = None,
        cont_names: Sequence[str] | None = None,
        engine: str | None = None,
        shuffle: bool = True,
        seed_fn: Callable[[], int] | None = None,
        buffer_size: float | int | str | None = None,
        device: int | str | None = None,
        parts_per_chunk: int = 1,
        reader_kwargs: dict[str, Any] | None = None,
        global_size: int | None = None,
        global_rank: int | None = None,
        drop_last: bool = False,
        sparse_names: Sequence[str] | None = None,
        sparse_max: Mapping[str, int] | None = None,
        sparse_as_dense: bool = False,
        schema: Any | None = None,
        seed: int | None = None,
    ):
        super().__init__()
        self.batch_size = require_integer("batch_size", batch_size, 1)
        parts_per_chunk = require_integer("parts_per_chunk", parts_per_chunk, 1)
        if engine not in (None, "parquet"):
            raise ValueError(f"engine must be None or 'parquet'. Received: {engine!r}.")
        size, rank = require_rank(global_size, global_rank)
        if seed_fn is not None and (seed is not None or not callable(seed_fn)):
            raise ValueError(
                f"seed_fn must be callable and not go with seed. Received: seed_fn={seed_fn!r}, seed={seed!r}."
            )
        self._seed_fn = seed_fn
        self._seed = random.getrandbits(63) if seed is None else require_integer("seed", seed, 0)
        self._device = device_name(device)
        self.shuffle = bool(shuffle)
        seeds = (seed, seed_fn) if self.shuffle else (None, None)
        self._budget = (part_bytes(buffer_size, *seeds), parts_per_chunk)
        self.drop_last = bool(drop_last)
        if schema is None and feature_columns is None and cat_names is None and cont_names is None:
            schema = schema_of(paths_or_dataset)
        self._source = open_source(paths_or_dataset, reader_kwargs)
        self._selection = select_columns(
            self._source.schema,
            label_names,
            feature_columns,
            cat_names,
            cont_names,
            schema,
            sparse_names,
            sparse_max,
            sparse_as_dense,
        )
        self._source.check([plan.name for plan in self._selection.plans])
        self._spans, self._batches = shard(self._source.rows, self.batch_size, size, rank, self.drop_last)
        self._shard = (size, rank)
        if buffer_size is None and seeds != (None, None):
            warn_without_room(*self._budget, self._spans, self._source, [plan.name for plan in self._selection.plans])
        self._maps: list[Callable] = []
        self._lock = threading.RLock()
        self._passes = 0
        self._next_chunks: list[Chunk] | None = None
        self._shared: IndexedEpoch | None = None
        self._in_epoch = False
        self._warned = False

    @property
    def cat_names(self) -> list[str]:
        """Columns of ids."""
        return list(self._selection.cat_names)

    @property
    def cont_names(self) -> list[str]:
        """Columns of numbers."""
        return list(self._selection.cont_names)

    @property
    def feature_names(self) -> list[str]:
        """All features, in the order in which they stand in a batch."""
        return list(self._selection.feature_names)

    @property
    def label_names(self) -> list[str]:
        """Columns that are labels."""
        return list(self._selection.label_names)

    @property
    def is_mapped(self) -> bool:
        """Whether functions were given to `map`, after which labels may be other ones than `label_names`."""
        return bool(self._maps)

    @property
    def num_rows(self) -> int:
        """Rows that one pass delivers to this process."""
        return self._batches.start(len(self))

    @property
    def use_multiprocessing(self) -> bool:
        """Always False: the loader reads ahead on threads of its own."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if value:
            raise ValueError(
                "use_multiprocessing must be False: the loader reads ahead on threads of its own. Received: True."
            )

    def __len__(self) -> int:
        """Number of batches, known from the files' footers."""
        return self._batches.num_batches

    def __iter__(self) -> Iterator:
        with self._lock:
            chunks = self._claim_chunks()
        reader = self._open(chunks)
        try:
            for position in range(len(self)):
                yield self._to_batch(reader.batch(position), self._device)
        finally:
            reader.close()

    def __getitem__(self, index: int) -> Any:
        """Batch `index` of the current order; Keras calls this from its own threads.

        Shuffled batches are numbered as they are first asked for, so that `fit`, which asks in random order
        by default, reads the files once from front to back.
        """
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"loader index must be in [{-len(self)}, {len(self)}). Received: {index}.")
        columns = self._read_shared(index % len(self))
        device = "CPU:0" if self._in_epoch else self._device
        return self._to_batch(columns, device)

    def on_epoch_begin(self) -> None:
        """Called by Keras, after it read the first batches to learn their shapes."""
        with self._lock:
            self._in_epoch = True
            self._share_order().begin(anew=self.workers <= 1)

    def on_epoch_end(self) -> None:
        """Called by Keras, before the first epoch too.

        The next access draws a new order if all batches of this one were handed out, and begins this one again if a batch
        of it could not be read.
        """
        with self._lock:
            self._in_epoch = False
            if self._shared is not None and self._shared.failed:
                self._shared.restart()
            elif self._shared is not None and self._shared.exhausted:
                self._shared.close()
                self._shared = None

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: without what is being read."""
        with self._lock:
            return {**self.__dict__, "_lock": None, "_shared": None, "_in_epoch": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock(), _maps=list(state["_maps"]))

    def map(self, fn: Callable) -> KerasSequenceLoader:
        """Applies `fn(features, labels)` to each batch, after the functions given before; returns the loader.

        Args:
            fn: takes the batch's parts (labels are None without label columns) and returns (features, labels)
                or (features, labels, sample_weights).
        """
        if not callable(fn):
            raise TypeError(f"fn must be callable. Received: {fn!r}.")
        self._maps.append(fn)
        return self

    def skip_passes(self, count: int) -> KerasSequenceLoader:
        """Leaves out the orders of `count` passes, for training that another process began; returns the loader.

        Raises:
            ValueError: `count` is no integer from 0.
            RuntimeError: a pass has begun.

        Example:
            >>> import pyarrow as pa
            >>> from merlin_models.loader.tensorflow import KerasSequenceLoader
            >>> table = pa.table({"item": range(100)})
            >>> one, other = (KerasSequenceLoader(table, 100, seed=7) for _ in range(2))
            >>> _ = next(iter(one))
            >>> bool((next(iter(one))["item"] == next(iter(other.skip_passes(1)))["item"]).numpy().all())
            True
        """
        count = require_integer("count", count, 0)
        with self._lock:
            if self._passes or self._shared is not None or self._next_chunks is not None:
                raise RuntimeError("skip_passes() must be called before the loader is read.")
            for _ in range(count if self.shuffle and self._seed_fn is not None else 0):
                self._seed_fn()
            self._passes = count
        return self

    def peek(self) -> Any:
        """The first batch of the next `iter(loader)`, which still delivers it."""
        with self._lock:
            chunks = self._peek_chunks()
        return self._first_batch(chunks)

    def _peek_chunks(self) -> list[Chunk]:
        if self._next_chunks is None:
            self._next_chunks = self._draw(self.shuffle)
        return self._next_chunks

    def _claim_chunks(self) -> list[Chunk]:
        chunks, self._next_chunks = self._peek_chunks(), None
        return chunks

    def _draw(self, shuffle: bool) -> list[Chunk]:
        """A new order of the rows."""
        seed = None
        if shuffle:
            base = self._seed if self._seed_fn is None else self._seed_fn()
            seed = (require_integer("the result of seed_fn", base, 0), self._passes)
            self._passes += 1
        names = [plan.name for plan in self._selection.plans]
        return draw_chunks(self._spans, self._source, names, *self._budget, seed)

    def _open(self, chunks: list[Chunk]) -> EpochReader:
        return EpochReader(self._source, self._selection.plans, chunks, self._batches)

    def _first_batch(self, chunks: list[Chunk]) -> Any:
        if not len(self):
            raise ValueError("The loader must have at least one batch. Received: no rows.")
        reader = self._open(chunks)
        try:
            return self._to_batch(reader.batch(0), self._device)
        finally:
            reader.close()

    def _share_order(self) -> IndexedEpoch:
        with self._lock:
            if self._shared is None:
                reader = functools.partial(self._open, self._claim_chunks())
                self._shared = IndexedEpoch(reader, len(self), renumber=self.shuffle)
            return self._shared

    def _read_shared(self, index: int) -> dict[str, Column]:
        shared = self._share_order()
        tolerance = 1 if self.workers <= 1 else 4 * self.workers  # Keras's threads overtake each other
        if not self._in_epoch or shared.is_in_order(index, tolerance):
            return shared.read(index)
        self._warn_out_of_order()
        return shared.read(index, keep_bytes=self._budget[0] * self._budget[1])

    def _resized(self, batch_size: int) -> KerasSequenceLoader:
        """A loader of the same rows and functions with another batch size."""
        other = copy.copy(self)
        other.batch_size = require_integer("batch_size", batch_size, 1)
        other._spans, other._batches = shard(self._source.rows, other.batch_size, *self._shard, drop_last=False)
        return other

    def _warn_out_of_order(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                "The loader has shuffle=False but Keras asks for its batches in random order: pass "
                "shuffle=False to fit as well to keep the order of the rows, or shuffle=True to the loader.",
                stacklevel=4,
            )

    def _to_batch(self, columns: dict[str, Column], device: str | None) -> Any:
        with tf.device(device):
            tensors = {name: to_tensor(column) for name, column in columns.items()}
            labels = {name: tensors[name] for name in self._selection.label_names}
            batch = (
                {name: tensors[name] for name in self._selection.feature_names},
                next(iter(labels.values())) if len(labels) == 1 else labels or None,
            )
            batch = mapped(batch, self._maps)
        return batch[0] if len(batch) == 2 and batch[1] is None else batch


Loader = KerasSequenceLoader
