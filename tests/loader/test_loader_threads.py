"""Reading ahead: bounded, errors reach the loop, threads and memory go."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pyarrow as pa
import pytest
from loader_data import reading_threads, rows_of, wait_for_threads, write_numbered

from merlin_models.loader import epochs, indexed
from merlin_models.loader.columns import Column
from merlin_models.loader.parquet import FileSource
from merlin_models.loader.tensorflow import KerasSequenceLoader


def load(paths, batch_size=10, **kwargs):
    kwargs.setdefault("buffer_size", 1)
    return KerasSequenceLoader(paths, batch_size, label_names=["y"], **kwargs)


def test_threads_end_with_the_loop(tmp_path):
    iterator = iter(load(write_numbered(tmp_path)))
    next(iterator)
    assert reading_threads()
    for _ in iterator:
        pass
    assert not wait_for_threads()


def test_threads_end_when_the_iterator_is_dropped(tmp_path):
    loader = load(write_numbered(tmp_path))
    iterator = iter(loader)
    next(iterator)
    assert reading_threads()
    del iterator
    gc.collect()
    assert not wait_for_threads()


def test_threads_end_when_the_loop_is_left(tmp_path):
    for _ in load(write_numbered(tmp_path)):
        break
    assert not wait_for_threads()


def test_threads_end_when_all_indices_were_read(tmp_path):
    loader = load(write_numbered(tmp_path))
    for index in range(len(loader)):
        loader[index]
    assert not wait_for_threads()


def test_threads_end_with_the_loader(tmp_path):
    loader = load(write_numbered(tmp_path))
    loader[0]
    assert reading_threads()
    del loader
    gc.collect()
    assert not wait_for_threads()


def test_close_ends_the_threads_of_a_reader_that_is_kept(tmp_path):
    loader = load(write_numbered(tmp_path))
    reader = loader._open(loader._draw(shuffle=False))
    reader.batch(0)
    assert reading_threads()
    reader.close()
    assert not wait_for_threads()
    assert reader is not None


def test_threads_end_when_nobody_asks_for_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(indexed, "IDLE_SECONDS", 0.3)
    loader = load(write_numbered(tmp_path), seed=0)
    loader.on_epoch_begin()
    rows = rows_of([loader[3], loader[1]])
    loader.on_epoch_end()
    assert reading_threads()
    assert not wait_for_threads()
    rows += rows_of([loader[index] for index in range(12) if index not in (1, 3)])
    assert sorted(rows) == list(range(120))


def test_pauses_shorter_than_the_limit_keep_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(indexed, "IDLE_SECONDS", 0.4)
    loader = load(write_numbered(tmp_path), seed=0)
    reader = None
    for index in range(8):
        loader[index]
        assert reader in (None, loader._shared._reader)
        reader = loader._shared._reader
        time.sleep(0.1)


def test_memory_goes_with_the_iterator(tmp_path, monkeypatch):
    alive = weakref.WeakSet()
    real = Column.__init__

    def remember(self, *args):
        real(self, *args)
        alive.add(self)

    monkeypatch.setattr(Column, "__init__", remember)
    monkeypatch.setattr(Column, "__hash__", object.__hash__)
    iterator = iter(load(write_numbered(tmp_path)))
    next(iterator)
    assert alive
    del iterator
    assert not wait_for_threads()
    gc.collect()
    assert not alive


def test_reads_ahead_but_only_one_chunk(tmp_path, monkeypatch):
    reads = []
    real = FileSource.read
    monkeypatch.setattr(FileSource, "read", lambda self, piece, names: reads.append(piece) or real(self, piece, names))
    monkeypatch.setattr("merlin_models.loader.epochs.BLOCK_ROWS", 10)
    iterator = iter(load(write_numbered(tmp_path)))
    next(iterator)
    time.sleep(0.3)
    assert 2 <= len(reads) <= 3  # the chunk in use, the next block's, and one ahead
    assert len(list(iterator)) == 11
    assert len(reads) == 12


@pytest.mark.parametrize("fail_at", [0, 5])
def test_errors_reach_the_loop(tmp_path, monkeypatch, fail_at):
    real = FileSource.read

    def read(self, piece, names):
        if piece == fail_at:
            raise OSError("disk on fire")
        return real(self, piece, names)

    monkeypatch.setattr(FileSource, "read", read)
    loader = load(write_numbered(tmp_path), shuffle=False)
    with pytest.raises(OSError, match="disk on fire"):
        list(loader)
    with pytest.raises(OSError, match="disk on fire"):
        loader[fail_at]
    del loader
    gc.collect()


def test_reading_goes_on_after_an_error(tmp_path, monkeypatch):
    """By index, where the order stays: what failed is read again, and nothing is lost."""
    monkeypatch.setattr(epochs, "BLOCK_ROWS", 10)
    paths = write_numbered(tmp_path)
    loader = load(paths, seed=0)
    raw, file = (tmp_path / "part_1.parquet").read_bytes(), tmp_path / "part_1.parquet"
    file.unlink()
    rows = {}
    for again in range(3):
        for index in range(len(loader)):
            if index not in rows:
                try:
                    rows[index] = rows_of([loader[index]])
                except FileNotFoundError:
                    assert again < 2
        if again == 1:
            file.write_bytes(raw)
    assert sorted(row for found in rows.values() for row in found) == list(range(120))
    assert [row for index in range(12) for row in rows[index]] == rows_of(load(paths, seed=0))
    assert not wait_for_threads()


def test_an_error_ends_the_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(epochs, "BLOCK_ROWS", 10)
    monkeypatch.setattr(indexed, "IDLE_SECONDS", 30.0)
    loader = load(write_numbered(tmp_path), shuffle=False)
    (tmp_path / "part_1.parquet").unlink()
    loader[0]
    with pytest.raises(FileNotFoundError):
        loader[5]
    assert not wait_for_threads()


def test_index_access_from_several_threads(tmp_path):
    loader = load(write_numbered(tmp_path), seed=0)
    loader.on_epoch_begin()
    rows, lock = [], threading.Lock()

    def work(indices):
        for index in indices:
            found = rows_of([loader[index]])
            with lock:
                rows.extend(found)

    threads = [threading.Thread(target=work, args=(range(start, 12, 4),)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(rows) == list(range(120))


def test_columns_are_gathered_by_several_threads(monkeypatch, rng):
    table = pa.table({f"x{number}": rng.integers(0, 99, 500) for number in range(12)})
    seen = set()
    take = Column.take

    def noted(self, rows):
        seen.add(threading.current_thread().name.rsplit("_", 1)[0])
        return take(self, rows)

    monkeypatch.setattr(Column, "take", noted)
    orders = {}
    for cores in (1, 2, 6):
        seen.clear()
        monkeypatch.setattr(epochs, "num_cores", lambda cores=cores: cores)
        batches = list(KerasSequenceLoader(table, 64, seed=3))
        assert seen == {"merlin-loader-column" if cores > 2 else "merlin-loader-gather"}
        orders[cores] = [{name: tensor.numpy().tolist() for name, tensor in batch.items()} for batch in batches]
    assert orders[1] == orders[2] == orders[6]
    everything = {name: sorted(value for batch in orders[6] for (value,) in batch[name]) for name in table.column_names}
    assert everything == {name: sorted(table[name].to_pylist()) for name in table.column_names}
