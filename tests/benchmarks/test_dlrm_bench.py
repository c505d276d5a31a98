"""The DLRM benchmark: our model takes the reference's step, and a provider that takes another is refused."""

from __future__ import annotations

import pytest

from benchmarks.harness import NotEqual, Provider, load_provider
from benchmarks.models import bench_dlrm as bench
from merlin_models.datasets import criteo

CASE = bench.CASES["dlrm_cap1k_b64_multihot_fp32"]


class Told(Provider):
    """A provider that reports the given losses."""

    def __init__(self, *losses):
        self._losses = iter(losses)

    def loss_of_step(self):
        return next(self._losses)


def test_cases_say_their_cap():
    problem = CASE.build()
    assert problem.rows == criteo.mlperf_cardinalities(max_rows=1_000)
    assert problem.hots == criteo.MLPERF_HOTS
    assert all(f"cap{case.max_rows // 1000}k" in case.name.replace("1m", "1000k") for case in bench.CASES.values())
    assert problem.config()["max_rows"] == 1_000


def test_our_model_takes_the_references_step():
    provider, problem = load_provider(bench, "merlin_tf"), CASE.build()
    provider.setup(problem, "cpu", "update", "adagrad")
    assert bench.check(provider, problem, "update", "adagrad") < 1e-4


def test_wrong_losses_are_refused():
    problem = CASE.build()
    before, after = problem.losses
    assert before - after > 1e-4
    assert bench.check(Told(before, after), problem, "update", "adagrad") == 0
    with pytest.raises(NotEqual, match="losses are"):
        bench.check(Told(before * 1.01, after), problem, "update", "adagrad")
    with pytest.raises(NotEqual, match="the loss fell by 0 in a step"):
        bench.check(Told(before, before), problem, "update", "adagrad")


def test_bytes_by_hand():
    problem = CASE.build()
    row = 4 * 8
    ids = 64 * sum(criteo.MLPERF_HOTS)
    update = 4 * problem.distinct_ids * row
    assert bench.traffic(problem, "update", "adagrad") == (ids * row + update, problem.distinct_ids * row + update)
