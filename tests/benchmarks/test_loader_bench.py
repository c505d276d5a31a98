"""The check of the loaders that are timed: a right one is, one that loses, repeats or mixes up rows is not."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from benchmarks.clocks import TensorFlowClock, WallClock
from benchmarks.harness import Plan, Provider, run_case
from benchmarks.loader import bench_loader as bench
from benchmarks.loader.loader_problem import checksum
from benchmarks.loader.loaders import Merlin, MerlinDataloader


class Wrong(Merlin):
    """Our loader with one thing wrong."""

    change = ""

    def batches(self):
        for number, (columns, genres, offsets) in enumerate(super().batches()):
            if number == 1:
                columns = {name: values.copy() for name, values in columns.items()}
                if self.change == "missing batch":
                    continue
                if self.change == "swapped movies":
                    movies = columns["movieId"]
                    other = np.flatnonzero(movies != movies[0])[0]  # a swap of equal ones changes nothing
                    movies[[0, other]] = movies[[other, 0]]
                if self.change == "swapped genres":
                    place = np.flatnonzero(np.diff(genres))[0]
                    genres = genres.copy()
                    genres[[place, place + 1]] = genres[[place + 1, place]]
                if self.change == "number":
                    columns["userId_count"][7] += 0.01
            yield columns, genres, offsets


def _run(provider: Provider):
    plan = Plan(bench.CASES["loader_20k_b256"], "cpu", "forward", "", seconds=0.01)
    return run_case(bench, plan, [provider], WallClock(), copy_gbps=10.0, report=lambda line: None)[0]


def test_ours_is_timed():
    row = _run(Merlin())
    assert row.status == "ok", row.reason
    assert row.error < 1e-12
    assert row.p50_ms > 0


@pytest.mark.parametrize("change", ["missing batch", "swapped movies", "swapped genres", "number"])
def test_wrong_rows_are_refused(change):
    provider = Wrong()
    provider.change = change
    row = _run(provider)
    assert row.status == "refused"
    assert "the epoch's sums are" in row.reason
    assert math.isnan(row.p50_ms)


def test_the_stored_order_is_refused():
    class InOrder(Merlin):
        def setup(self, *arguments):
            super().setup(*arguments)
            self._loader.shuffle = False

    assert re.search("must be shuffled", _run(InOrder()).reason)


def test_checksum_by_hand():
    arrays = {
        "userId": np.array([[3], [5]]),
        "movieId": np.array([[100], [4]]),
        "rating_b": np.array([[1], [0]], np.int8),
        "TE_movieId_rating": np.array([[0.5], [0.25]], np.float32),
        "userId_count": np.array([[1.0], [2.0]], np.float32),
    }
    found = checksum(arrays, np.array([7, 8, 9]), np.array([0, 2, 3]))
    # rows, users, movies, labels, numbers, genres, lengths; 3*3*2 + 5*4*1; (7+16)*3 + 9*5; 0.5*3 + 0.25*5; 1*21 + 2*4
    np.testing.assert_allclose(found, [2, 8, 104, 1, 0.75, 3, 24, 3, 38, 114, 2.75, 29])


def test_on_a_gpu_ours_is_asked_for_tensors_there(monkeypatch):
    import merlin_models.loader.tensorflow as loader

    asked = []
    monkeypatch.setattr(loader, "KerasSequenceLoader", lambda *_, device, **__: asked.append(device))
    problem = bench.CASES["loader_20k_b256"].build()
    for device in ("cuda", "cpu"):
        Merlin().setup(problem, device, "forward", "")
    assert asked == ["gpu", "cpu"]


def test_the_older_loader_is_not_measured_on_a_gpu():
    case = bench.CASES["loader_5m_b4096"]
    assert "cuDF" in MerlinDataloader().unsupported(case, "cuda", "forward", "")
    assert MerlinDataloader().unsupported(case, "cpu", "forward", "") == ""


@pytest.mark.gpu
def test_ours_is_timed_on_a_gpu():
    plan = Plan(bench.CASES["loader_20k_b256"], "cuda", "forward", "", seconds=0.01)
    [row] = run_case(bench, plan, [Merlin()], TensorFlowClock(), copy_gbps=10.0, report=lambda line: None)
    assert row.status == "ok", row.reason
    assert row.peak_extra_mb > 0
