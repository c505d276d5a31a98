"""The order of one epoch, and a reader that delivers its batches ahead of time. NumPy and Arrow only.

An epoch is a list of chunks; a chunk is some pieces (row groups) read together, with one permutation of their
rows.
"""

from __future__ import annotations

import bisect
import functools
import math
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from merlin_models.loader.columns import Column, concat
from merlin_models.loader.parquet import Source
from merlin_models.loader.selection import ColumnPlan
from merlin_models.loader.sizes import available_memory

BLOCK_ROWS = 16_384
SEQUENTIAL_CHUNK_BYTES = 64 * 2**20
MAX_HELPERS = 8


@dataclass(frozen=True)
class Span:
    """Rows [start, stop) of a piece."""

    piece: int
    start: int
    stop: int


@dataclass(frozen=True)
class Chunk:
    """Spans that are read together; `first_row` is their first row's position in the epoch."""

    spans: tuple[Span, ...]
    first_row: int
    num_rows: int
    seed: tuple[int, ...] | None

    def permutation(self) -> np.ndarray | None:
        """Order of the rows within the chunk, None for the order they are stored in."""
        return None if self.seed is None else np.random.default_rng(self.seed).permutation(self.num_rows)


@dataclass(frozen=True)
class Batches:
    """How this rank's rows are cut into batches.

    Every rank gets the same number of batches. Its rows differ by at most one between ranks; where that one
    row would cost the others a batch, the last batch of the rank with less rows is cut in two.
    """

    num_rows: int
    batch_size: int
    num_batches: int

    def start(self, batch: int) -> int:
        """First row of `batch`; `start(num_batches)` is the number of rows delivered."""
        latest = self.num_rows - (self.num_batches - batch)
        return min(batch * self.batch_size, latest if batch < self.num_batches else self.num_rows)


def num_cores() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shard(rows: Sequence[int], batch_size: int, size: int, rank: int, drop_last: bool) -> tuple[list[Span], Batches]:
    """Gives each of `size` ranks an equal, contiguous share of all rows.

    Raises:
        ValueError: there are fewer rows than ranks, or batches of one row can't be made equal in number.
    """
    total = sum(rows)
    if total < size and not drop_last and total:
        raise ValueError(f"global_size must not exceed the number of rows, {total}. Received: {size}.")
    first, last = rank * total // size, (rank + 1) * total // size
    if drop_last:
        num_batches = total // size // batch_size
    else:
        num_batches = math.ceil(math.ceil(total / size) / batch_size)
        if batch_size == 1 and total % size:
            raise ValueError(
                f"batch_size=1 needs drop_last=True unless the rows divide by global_size. "
                f"Received: {total} rows for {size} ranks."
            )
    spans, offset = [], 0
    for piece, count in enumerate(rows):
        start, stop = max(first - offset, 0), min(last - offset, count)
        if start < stop:
            spans.append(Span(piece, start, stop))
        offset += count
    return spans, Batches(last - first, batch_size, num_batches)


def span_bytes(span: Span, source: Source, names: Sequence[str]) -> int:
    """About how many bytes a span takes in memory, at most."""
    share = (span.stop - span.start) / source.rows[span.piece]
    return math.ceil(source.nbytes(span.piece, names) * share)


def warn_without_room(
    part_bytes: int, parts_per_chunk: int, spans: Sequence[Span], source: Source, names: Sequence[str]
) -> None:
    """Warns the loader's caller where two chunks of a default, which does not ask what is available, have no room."""
    room, most = available_memory(), 2 * part_bytes * parts_per_chunk
    if most <= room:
        return
    needed = min(most, sum(span_bytes(span, source, names) for span in spans))
    if needed > room:
        warnings.warn(
            f"buffer_size is {part_bytes / 1e9:g} GB by default where a seed is given, and two chunks must fit into memory: "
            f"up to {needed / 1e9:.2g} GB here. Available: {room / 1e9:.2g} GB. Give a smaller one, such as '100MB'.",
            stacklevel=3,
        )


def draw_chunks(
    spans: Sequence[Span],
    source: Source,
    names: Sequence[str],
    part_bytes: int,
    parts_per_chunk: int,
    seed: tuple[int, ...] | None,
) -> list[Chunk]:
    """The chunks of one epoch.

    With a seed the spans come in random order and a chunk is `parts_per_chunk` parts, a part being as many
    spans as have room in `part_bytes` (at least one). Without, there is nothing to mix: chunks stay small and
    in order.
    """
    if seed is None:
        part_bytes, parts_per_chunk = min(part_bytes, SEQUENTIAL_CHUNK_BYTES), 1
    else:
        spans = [spans[i] for i in np.random.default_rng(seed).permutation(len(spans))]
    parts: list[list[Span]] = []
    free = 0
    for span in spans:
        size = span_bytes(span, source, names)
        if not parts or size > free:
            parts.append([])
            free = part_bytes
        parts[-1].append(span)
        free -= size
    chunks: list[Chunk] = []
    first_row = 0
    for i in range(0, len(parts), parts_per_chunk):
        together = tuple(span for part in parts[i : i + parts_per_chunk] for span in part)
        num_rows = sum(span.stop - span.start for span in together)
        chunk_seed = None if seed is None else (*seed, len(chunks) + 1)
        chunks.append(Chunk(together, first_row, num_rows, chunk_seed))
        first_row += num_rows
    return chunks


class EpochReader:
    """Batches of one epoch by position, fast in ascending order.

    While a block of batches is handed out, one thread gathers the next block, with the help of others a column
    each, and one reads the next chunk. At most two chunks are held; with `keep_bytes` more, up to that size, for
    batches that are asked for in any order. Not thread-safe. `close` drops all data; the threads end when their
    current piece of work is done.
    """

    def __init__(
        self,
        source: Source,
        plans: Sequence[ColumnPlan],
        chunks: Sequence[Chunk],
        batches: Batches,
    ):
        self._source = source
        self._plans = plans
        self._chunks = chunks
        self._first_rows = [chunk.first_row for chunk in chunks]
        self._batches = batches
        self._block_batches = max(1, BLOCK_ROWS // batches.batch_size)
        self._reading: OrderedDict[int, Future] = OrderedDict()
        self._gathering: OrderedDict[int, Future] = OrderedDict()
        self._last_block = -1
        self._reader = ThreadPoolExecutor(1, "merlin-loader-read")
        self._gatherer = ThreadPoolExecutor(1, "merlin-loader-gather")
        helpers = min(len(plans), MAX_HELPERS, num_cores() - 1)
        self._helpers = ThreadPoolExecutor(helpers, "merlin-loader-column") if helpers > 1 else None
        self.keep_bytes = 0

    def batch(self, position: int) -> dict[str, Column]:
        """The columns of the batch at `position`, as views of a block."""
        block = position // self._block_batches
        columns = self._submit_block(block).result()
        if block in (self._last_block + 1, 0) and (block + 1) * self._block_batches < self._batches.num_batches:
            self._submit_block(block + 1)
        self._last_block = block
        while len(self._gathering) > 3:
            self._gathering.popitem(last=False)
        first = self._batches.start(block * self._block_batches)
        start, stop = self._batches.start(position) - first, self._batches.start(position + 1) - first
        return {name: column.cut(start, stop) for name, column in columns.items()}

    def close(self) -> None:
        """Drops all data and lets the threads end."""
        for pool in filter(None, (self._gatherer, self._reader, self._helpers)):
            pool.shutdown(wait=False, cancel_futures=True)
        self._gathering = OrderedDict()
        self._reading = OrderedDict()

    def _submit_block(self, block: int) -> Future:
        if block not in self._gathering:
            self._gathering[block] = self._gatherer.submit(self._gather, block)
        self._gathering.move_to_end(block)
        return self._gathering[block]

    def _gather(self, block: int) -> dict[str, Column]:
        """Rows of a block of batches, in the epoch's order."""
        start = self._batches.start(block * self._block_batches)
        stop = self._batches.start(min((block + 1) * self._block_batches, self._batches.num_batches))
        pieces = []
        index = bisect.bisect_right(self._first_rows, start) - 1
        while start < stop:
            chunk = self._chunks[index]
            low, high = start - chunk.first_row, min(stop - chunk.first_row, chunk.num_rows)
            columns, order = self._chunk(index)
            pieces.append(self._for_columns(functools.partial(_rows_of, columns, low, high, order)))
            start = chunk.first_row + high
            index += 1
        return self._for_columns(functools.partial(_join, pieces))

    def _for_columns(self, make: Callable[[ColumnPlan], Column]) -> dict[str, Column]:
        made = map(make, self._plans) if self._helpers is None else self._helpers.map(make, self._plans)
        return {plan.name: column for plan, column in zip(self._plans, made, strict=True)}

    def _chunk(self, index: int) -> tuple[dict[str, Column], np.ndarray | None]:
        """A chunk's columns and permutation, with the next one started; for the gathering thread only."""
        future = self._submit_chunk(index)
        result = future.result()
        if self.keep_bytes:
            self._evict_to(self.keep_bytes)
        else:
            for other in [other for other in self._reading if other not in (index, index + 1)]:
                self._reading.pop(other, None)
            if index + 1 < len(self._chunks):
                self._submit_chunk(index + 1)
        return result

    def _evict_to(self, limit: int) -> None:
        done = {index: future for index, future in self._reading.items() if future.done()}
        sizes = {index: sum(column.nbytes for column in future.result()[0].values()) for index, future in done.items()}
        for index in list(sizes)[:-1]:
            if sum(sizes.values()) <= limit:
                break
            self._reading.pop(index, None)
            del sizes[index]

    def _submit_chunk(self, index: int) -> Future:
        if index not in self._reading:
            self._reading[index] = self._reader.submit(self._read, self._chunks[index])
        self._reading.move_to_end(index)
        return self._reading[index]

    def _read(self, chunk: Chunk) -> tuple[dict[str, Column], np.ndarray | None]:
        names = [plan.name for plan in self._plans]
        parts: dict[str, list[Column]] = {name: [] for name in names}
        for span in chunk.spans:
            table = self._source.read(span.piece, names).slice(span.start, span.stop - span.start)
            for plan in self._plans:
                parts[plan.name].append(plan.convert(table.column(plan.name)))
        return {name: concat(parts.pop(name)) for name in names}, chunk.permutation()


def _rows_of(columns: dict[str, Column], low: int, high: int, order: np.ndarray | None, plan: ColumnPlan) -> Column:
    """Rows `low` to `high` of a chunk's order, as a copy."""
    column = columns[plan.name]
    return column.cut(low, high).copy() if order is None else column.take(order[low:high])


def _join(pieces: list[dict[str, Column]], plan: ColumnPlan) -> Column:
    column = concat([piece[plan.name] for piece in pieces])
    return column.padded(plan.limit) if plan.dense else column
