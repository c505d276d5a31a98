"""Every row exactly once: shuffled, sharded, cut into batches, by index, again and again."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_data import features_of, numbered_table, rows_of, write_numbered

from merlin_models.loader import epochs, sizes
from merlin_models.loader.epochs import shard
from merlin_models.loader.tensorflow import KerasSequenceLoader


def load(data, batch_size=16, **kwargs):
    return KerasSequenceLoader(data, batch_size, label_names=["y"], **kwargs)


def batch_sizes(batches) -> list[int]:
    return [len(features_of(batch)["row"]) for batch in batches]


@pytest.mark.parametrize("buffer_size", [1, "2kB", None])
@pytest.mark.parametrize("parts_per_chunk", [1, 3])
def test_shuffle_delivers_each_row_once(tmp_path, buffer_size, parts_per_chunk):
    loader = load(write_numbered(tmp_path), seed=1, buffer_size=buffer_size, parts_per_chunk=parts_per_chunk)
    batches = list(loader)
    assert batch_sizes(batches) == [16] * 7 + [8]
    rows = rows_of(batches)
    assert sorted(rows) == list(range(120))
    assert rows != list(range(120))
    for features, labels in batches:
        row = features["row"].numpy()
        assert features["bag"].to_list() == [[r] * (r % 4) for r in row.ravel().tolist()]
        assert (labels.numpy() == row % 2).all()


def test_new_order_each_pass_and_reproducible(tmp_path):
    paths = write_numbered(tmp_path)
    first, second = load(paths, seed=3), load(paths, seed=3)
    passes = [rows_of(first) for _ in range(3)]
    assert passes == [rows_of(second) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert rows_of(load(paths, seed=4)) != passes[0]
    assert rows_of(load(paths)) != rows_of(load(paths))


@pytest.mark.parametrize("seed", [{"seed": 3}, {"seed_fn": lambda: 3}])
def test_seeded_orders_do_not_hang_on_what_memory_is_free(tmp_path, monkeypatch, seed):
    """Row groups of 10 rows take about 1 kB, so that without the rule a part would have one, or all of them."""
    paths, orders = write_numbered(tmp_path), []
    for free in (10**4, 10**12):
        monkeypatch.setattr(sizes, "available_memory", lambda free=free: free)
        loader = load(paths, **seed)
        orders.append([rows_of(loader), rows_of(loader), rows_of(load(paths, **seed).skip_passes(1))])
    assert orders[0] == orders[1]
    assert orders[0][1] == orders[0][2]
    assert orders[0][0] == rows_of(load(paths, buffer_size="1GB", **seed))


def test_without_a_seed_parts_have_a_tenth_of_what_is_free(monkeypatch):
    monkeypatch.setattr(sizes, "available_memory", lambda: 5000)
    table = numbered_table(0, 4)
    assert load(table)._budget == (500, 1)
    assert load(table, seed=1, shuffle=False)._budget == (500, 1)
    assert load(table, seed=1, shuffle=False, buffer_size=0.5)._budget == (2500, 1)
    assert load(table, seed=1)._budget == (10**9, 1)


def test_a_share_of_the_free_memory_does_not_go_with_a_seed():
    table = numbered_table(0, 4)
    with pytest.raises(
        ValueError, match=r"buffer_size must be bytes, such as '1GB', where seed is given.*Received: 0.1"
    ):
        load(table, seed=1, buffer_size=0.1)
    with pytest.warns(
        UserWarning, match=r"buffer_size should be bytes.*where seed_fn is given.*Received: 0.1"
    ) as caught:
        load(table, seed_fn=lambda: 1, buffer_size=0.1)
    assert caught[0].filename == __file__


def test_a_seed_without_room_for_its_chunks_warns(tmp_path, monkeypatch):
    paths = write_numbered(tmp_path)
    monkeypatch.setattr(epochs, "available_memory", lambda: 5000)
    with pytest.warns(
        UserWarning, match=r"buffer_size is 1 GB by default where a seed is given.*Give a smaller one"
    ) as caught:
        load(paths, seed=1)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(paths)
        load(paths, seed=1, buffer_size="1GB")
        monkeypatch.setattr(epochs, "available_memory", lambda: 10**6)  # the files are smaller
        load(paths, seed=1)


def test_seed_fn_is_called_each_pass(tmp_path):
    paths = write_numbered(tmp_path)
    calls = []

    def seed_fn():
        calls.append(len(calls))
        return 7

    loader = load(paths, seed_fn=seed_fn)
    passes = [rows_of(loader), rows_of(loader)]
    assert calls == [0, 1]
    assert passes[0] != passes[1]
    assert passes[0] == rows_of(load(paths, seed=7))


@pytest.mark.parametrize("result", [-1, 1.5, None])
def test_seed_fn_must_return_an_integer(result):
    with pytest.raises(ValueError, match="the result of seed_fn must be an integer of at least 0"):
        list(load(numbered_table(0, 4), seed_fn=lambda: result))


def test_parts_per_chunk_mixes_row_groups(tmp_path):
    """With parts of one row group of 10 rows, a chunk of k parts has rows of exactly k row groups."""
    paths = write_numbered(tmp_path)
    for parts in (1, 2, 4):
        rows = rows_of(load(paths, batch_size=10 * parts, seed=0, buffer_size=1, parts_per_chunk=parts))
        for start in range(0, 120, 10 * parts):
            groups = {row // 10 for row in rows[start : start + 10 * parts]}
            assert len(groups) == parts


def test_row_groups_come_in_random_order(tmp_path):
    """Chunks of one row group: their order is random too, and new in each pass."""
    loader = load(write_numbered(tmp_path), batch_size=10, seed=0, buffer_size=1)
    orders = [[row // 10 for row in rows_of(loader)[::10]] for _ in range(2)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert list(range(12)) != orders[0] != orders[1]


def test_buffer_size_decides_the_row_groups_of_a_part(tmp_path):
    """A row group of 10 rows: 3 columns of at most 8 bytes each way and lists of 1.5 values on average."""
    loader = load(write_numbered(tmp_path), batch_size=20, seed=0, buffer_size=1200)
    rows = rows_of(loader)
    assert all(len({row // 10 for row in rows[i : i + 20]}) == 2 for i in range(0, 120, 20))


def test_everything_is_mixed_when_there_is_room(tmp_path):
    rows = rows_of(load(write_numbered(tmp_path), batch_size=20, seed=0, buffer_size="1GB"))
    assert all(len({row // 10 for row in rows[i : i + 20]}) > 4 for i in range(0, 120, 20))


def test_batches_cross_blocks_and_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(epochs, "BLOCK_ROWS", 8)
    paths = write_numbered(tmp_path)
    for batch_size in (1, 3, 7, 8, 13, 119, 120, 121, 1000):
        loader = load(paths, batch_size, seed=0, buffer_size=1)
        batches = list(loader)
        assert len(batches) == len(loader) == math.ceil(120 / batch_size)
        assert sorted(rows_of(batches)) == list(range(120))
        assert rows_of(load(paths, batch_size, shuffle=False, buffer_size=1)) == list(range(120))


def test_drop_last(tmp_path):
    paths = write_numbered(tmp_path)
    loader = load(paths, shuffle=False, drop_last=True)
    assert (len(loader), loader.num_rows) == (7, 112)
    assert batch_sizes(loader) == [16] * 7
    assert rows_of(loader) == list(range(112))
    assert len(load(paths, batch_size=30, drop_last=True)) == 4
    assert list(load(paths, batch_size=121, drop_last=True)) == []


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("size", "batch_size"), [(1, 16), (2, 16), (3, 7), (4, 16), (7, 17), (50, 3)])
def test_shards_cover_all_rows(tmp_path, shuffle, size, batch_size):
    paths = write_numbered(tmp_path)
    loaders = [
        load(paths, batch_size, shuffle=shuffle, seed=0, global_size=size, global_rank=rank) for rank in range(size)
    ]
    parts = [rows_of(loader) for loader in loaders]
    assert sorted(row for part in parts for row in part) == list(range(120))
    assert len({len(loader) for loader in loaders}) == 1
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shards_with_one_row_less_cut_their_last_batch():
    """9 rows, batches of 4 on two ranks: 4 rows come as 3 + 1, as the other rank needs two batches for 5."""
    table = numbered_table(0, 9)
    sizes = [batch_sizes(load(table, 4, shuffle=False, global_size=2, global_rank=rank)) for rank in (0, 1)]
    assert sizes == [[3, 1], [4, 1]]


def test_shards_drop_last():
    table = numbered_table(0, 9)
    loaders = [load(table, 4, shuffle=False, drop_last=True, global_size=2, global_rank=rank) for rank in (0, 1)]
    assert [rows_of(loader) for loader in loaders] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_shards_need_rows():
    with pytest.raises(ValueError, match=r"global_size must not exceed the number of rows, 3. Received: 4"):
        load(numbered_table(0, 3), global_size=4, global_rank=0)
    with pytest.raises(ValueError, match=r"batch_size=1 needs drop_last=True.*3 rows for 2 ranks"):
        load(numbered_table(0, 3), 1, global_size=2, global_rank=0)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.integers(0, 30), max_size=8),
    batch_size=st.integers(2, 12),
    size=st.integers(1, 6),
    drop_last=st.booleans(),
)
def test_shard_properties(rows, batch_size, size, drop_last):
    total = sum(rows)
    if 0 < total < size and not drop_last:
        with pytest.raises(ValueError, match="global_size"):
            shard(rows, batch_size, size, 0, drop_last)
        return
    covered = []
    counts = set()
    for rank in range(size):
        spans, batches = shard(rows, batch_size, size, rank, drop_last)
        counts.add(batches.num_batches)
        covered += [(span.piece, row) for span in spans for row in range(span.start, span.stop)]
        cuts = [batches.start(i) for i in range(batches.num_batches + 1)]
        steps = np.diff(cuts)
        assert cuts[0] == 0
        assert (steps > 0).all()
        assert (steps <= batch_size).all()
        assert (steps[:-2] == batch_size).all()
        assert drop_last or cuts[-1] == batches.num_rows
        assert not drop_last or (steps == batch_size).all()
    assert covered == [(piece, row) for piece, count in enumerate(rows) for row in range(count)]
    assert len(counts) == 1


def test_index_access_in_any_order(tmp_path):
    paths = write_numbered(tmp_path)
    loader = load(paths, shuffle=False, buffer_size=1)
    for index in (3, 0, 7, 3, 2, -1):
        start = index % 8 * 16
        assert rows_of([loader[index]]) == list(range(start, min(start + 16, 120)))
    for index in (8, -9):
        with pytest.raises(IndexError, match=rf"loader index must be in \[-8, 8\). Received: {index}"):
            loader[index]
    del loader


def test_index_access_is_one_epoch(tmp_path):
    loader = load(write_numbered(tmp_path), seed=0)
    first = [rows_of([loader[index]]) for index in range(8)]
    assert sorted(itertools.chain(*first)) == list(range(120))
    assert [rows_of([loader[index]]) for index in reversed(range(8))] == first[::-1]
    loader.on_epoch_end()
    second = [rows_of([loader[index]]) for index in range(8)]
    assert sorted(itertools.chain(*second)) == list(range(120))
    assert second != first


def test_an_abandoned_reader_does_not_disturb_the_next_epoch(tmp_path):
    """An interrupted fit leaves a thread of Keras that goes on asking, while the next fit begins."""
    loader = load(write_numbered(tmp_path), seed=0, batch_size=10)
    loader.on_epoch_begin()
    for index in (5, 2, 9):
        loader[index]
    loader[0], loader[1]  # the next fit infers shapes
    loader.on_epoch_end()
    loader.on_epoch_begin()
    stale = iter([3, 4, 6, 7, 8, 10, 11])
    rows = []
    for index in np.random.default_rng(0).permutation(12):
        rows += rows_of([loader[int(index)]])
        stale_index = next(stale, None)
        if stale_index is not None:
            loader[stale_index]
    assert sorted(rows) == list(range(120))
    loader.on_epoch_end()
    loader.on_epoch_begin()
    again = rows_of([loader[index] for index in range(12)])
    assert sorted(again) == list(range(120))
    assert again != rows


def test_workers_of_keras_start_before_the_epoch(tmp_path):
    """With `workers` > 1 Keras asks for batches before it calls `on_epoch_begin`."""
    loader = load(write_numbered(tmp_path), seed=0, batch_size=10, buffer_size=1)
    loader.workers = 3
    loader[0], loader[1]
    loader.on_epoch_end()
    order = np.random.default_rng(0).permutation(12).tolist()
    early = [rows_of([loader[index]]) for index in order[:5]]
    loader.on_epoch_begin()
    rows = list(itertools.chain(*early, *(rows_of([loader[index]]) for index in order[5:])))
    assert sorted(rows) == list(range(120))
    loader.on_epoch_end()
    assert rows_of([loader[index] for index in order]) != rows


def test_half_an_epoch_keeps_its_order(tmp_path):
    loader = load(write_numbered(tmp_path), seed=0)
    first = rows_of([loader[0]])
    loader.on_epoch_end()
    assert rows_of([loader[0]]) == first


def test_keras_epoch_in_random_order_reads_each_chunk_once(tmp_path, monkeypatch):
    paths = write_numbered(tmp_path)
    loader = load(paths, seed=0, buffer_size=1, batch_size=10)
    reads = []
    real = type(loader._source).read
    monkeypatch.setattr(
        type(loader._source),
        "read",
        lambda self, piece, names: reads.append(piece) or real(self, piece, names),
    )
    probes = [rows_of([loader[0]]), rows_of([loader[1]])]
    loader.on_epoch_end()
    loader.on_epoch_begin()
    order = np.random.default_rng(0).permutation(12)
    rows = {int(index): rows_of([loader[index]]) for index in order}
    assert sorted(itertools.chain(*rows.values())) == list(range(120))
    assert [rows[int(order[0])], rows[int(order[1])]] == probes
    loader.on_epoch_end()
    assert sorted(reads) == list(range(12))


def test_steps_per_epoch_goes_through_all_rows(tmp_path):
    """Keras keeps its iterator over several short epochs, and may ask for batches between them."""
    loader = load(write_numbered(tmp_path), seed=0, batch_size=10)
    rows = []
    order = np.random.default_rng(1).permutation(12).tolist()
    for start in range(0, 12, 4):
        loader.on_epoch_begin()
        rows += rows_of([loader[index] for index in order[start : start + 3]])
        loader.on_epoch_end()
        rows += rows_of([loader[index] for index in order[start + 3 : start + 4]])
    assert sorted(rows) == list(range(120))


def test_peek_does_not_advance(tmp_path):
    loader = load(write_numbered(tmp_path), seed=0)
    peeked = rows_of([loader.peek()])
    assert rows_of([loader.peek()]) == peeked
    assert rows_of([next(iter(loader))]) == peeked
    assert rows_of([loader.peek()]) != peeked


def test_two_iterators_at_once(tmp_path):
    loader = load(write_numbered(tmp_path), seed=0, buffer_size=1)
    pairs = list(zip(loader, loader, strict=True))
    assert sorted(rows_of([left for left, _ in pairs])) == list(range(120))
    assert sorted(rows_of([right for _, right in pairs])) == list(range(120))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=25),
    batch_size=st.integers(1, 9),
    group=st.integers(1, 7),
    shuffle=st.booleans(),
)
def test_random_lists_like_plain_python(tmp_path_factory, rows, batch_size, group, shuffle):
    path = tmp_path_factory.mktemp("lists") / "a.parquet"
    table = pa.table({"row": range(len(rows)), "bag": pa.array(rows, pa.list_(pa.int64()))})
    pq.write_table(table, path, row_group_size=group)
    loader = KerasSequenceLoader(path, batch_size, shuffle=shuffle, seed=0, buffer_size=1)
    dense = KerasSequenceLoader(
        path, batch_size, shuffle=shuffle, seed=0, buffer_size=1, sparse_max={"bag": 6}, sparse_as_dense=True
    )
    seen = []
    for features, padded in zip(loader, dense, strict=True):
        index = features["row"].numpy().ravel().tolist()
        seen += index
        assert features["bag"].to_list() == [rows[i] for i in index]
        assert padded["bag"].numpy().tolist() == [rows[i] + [0] * (6 - len(rows[i])) for i in index]
    assert sorted(seen) == list(range(len(rows)))
    assert shuffle or seen == list(range(len(rows)))
