"""The serving benchmarks: our exports answer like the reference, what does not is refused, and how rows are shown."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.clocks import WallClock
from benchmarks.harness import NotEqual, Plan, Provider, load_provider, run_case
from benchmarks.models import bench_serving as bench
from benchmarks.models import bench_serving_http as http
from benchmarks.models.dlrm_problem import predictions
from benchmarks.report import tables
from benchmarks.report.contests import Contest, load
from benchmarks.report.regions import REGIONS
from benchmarks.rows import Row, write_csv

CASE = bench.CASES["serving_cap1k_b64_multihot"]


class Told(Provider):
    """A provider that answers as it is told."""

    def __init__(self, answers):
        self.predictions = lambda: answers


@pytest.mark.parametrize("name", ["merlin_tf", "merlin_tf_portable", "merlin_tf_call"])
def test_ours_answer_like_the_reference(name):
    provider, problem = load_provider(bench, name), CASE.build()
    provider.setup(problem, "cpu", "forward", "")
    assert bench.check(provider, problem, "forward", "") < 1e-5


def test_wrong_answers_are_refused():
    problem = CASE.build()
    right = predictions(problem)
    assert right.shape == (64, 1)
    assert np.ptp(right) > 1e-3
    assert bench.check(Told(right), problem, "forward", "") == 0
    with pytest.raises(NotEqual, match=r"probabilities differ by 0\.01"):
        bench.check(Told(right + 0.01), problem, "forward", "")
    with pytest.raises(NotEqual, match="the shape"):
        bench.check(Told(right[:1]), problem, "forward", "")


def test_bytes_by_hand():
    problem = bench.CASES["serving_cap1k_b1_onehot"].build()
    assert bench.traffic(problem, "forward", "") == (26 * 4 * 8, 26 * 4 * 8)


class Load(Provider):
    """A provider that makes its calls itself."""

    name, runtime = "load", "tensorflow"

    def memory_bytes(self, problem, device, mode, optimizer):
        return 0

    def setup(self, problem, device, mode, optimizer):
        self.calls = 0

    def forward(self, i):
        self.calls += 1

    def own_times(self, plan):
        return [1.0, 2.0, 3.0, 10.0], {"p99_ms": 10.0, "requests_a_second": 7.0}


def test_times_of_a_load_are_the_row_s():
    class Case:
        name, dtype, ids = "c", "float32", "some"

        def build(self):
            return Problem()

    class Problem:
        num_sets = num_grads = 1

        def config(self):
            return {"batch": 3}

    class Op:
        NAME = "serving_http"

        def check(self, *arguments):
            return 0.0

        def traffic(self, *arguments):
            return 0, 0

    provider = Load()
    [row] = run_case(Op(), Plan(Case(), "cpu", "forward", ""), [provider], WallClock(), 1.0, lambda line: None)
    assert (row.p50_ms, row.samples) == (2.5, 4)
    config = json.loads(row.config)
    assert (config["p99_ms"], config["requests_a_second"], config["batch"]) == (10.0, 7.0, 3)
    assert tables.examples_a_second(row) == 21.0
    row.device, row.timestamp = "Some CPU, 2 threads", "2026-12-01T00:00:00"
    text = REGIONS["serving-http"](_contests({**config, "connections": 4}, row))
    assert "| 3 | 4 | with our ops | 2.50 | 10.0 | 7.00 | 21.0 |" in text


def _contests(config, row):
    row.provider, row.config = "merlin_tf", json.dumps(config)
    return {
        ("serving_http", row.case, row.mode, "", row.device): Contest(
            row.op, row.case, row.mode, "", row.device, {"ours in TensorFlow": row}, {}, {row.provider: row}
        )
    }


def test_answers_over_http_must_be_those_of_the_model():
    class Told:
        def ask(self, rows):
            return np.array([0.25, 0.5])[: len(rows)]

    class Problem:
        def __init__(self, expected):
            self.expected = np.array(expected)

        def examples(self):
            return [{}] * 2, self.expected

    assert http.check(Told(), Problem([0.25, 0.5]), "forward", "") == 0
    with pytest.raises(NotEqual, match=r"probabilities differ by 0\.25"):
        http.check(Told(), Problem([0.5, 0.5]), "forward", "")
    with pytest.raises(NotEqual, match="the shape"):
        http.check(Told(), Problem([0.25, 0.5, 0.5]), "forward", "")


def test_our_other_forms_are_no_peers(tmp_path):
    rows = [
        Row("serving", "serving_cap100k_b64_onehot", name, "forward", "", "ok", p50_ms=ms, config='{"batch": 64}')
        for name, ms in {"merlin_tf": 2.0, "merlin_tf_portable": 1.0, "merlin_tf_call": 4.0, "keras": 3.0}.items()
    ]
    for row in rows:
        row.device, row.timestamp = "Some CPU, 2 threads", "2026-12-01T00:00:00"
    write_csv(tmp_path / "rows.csv", rows)
    contests = load([tmp_path / "rows.csv"])
    [contest] = contests.values()
    assert contest.best_peer[0] == "Keras"
    text = REGIONS["serving"](contests)
    assert "|  | ours | ours, portable | ours, not exported | Keras | ours, rows a second |" in text
    assert "| 64 rows, an id a feature | 2.00 | 1.00 | 4.00 | 3.00 | 32,000 |" in text
