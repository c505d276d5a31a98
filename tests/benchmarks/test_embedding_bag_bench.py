"""The check of embedding_bag's providers: its maths by hand, and that a wrong provider gets no time."""

from __future__ import annotations

import math
import os
import re

import numpy as np
import pytest

from benchmarks import run
from benchmarks.clocks import WallClock
from benchmarks.gather_floor import sum_rows
from benchmarks.harness import Plan, Provider, load_provider, run_case
from benchmarks.ids import BagArrays
from benchmarks.ops import bench_embedding_bag as bench
from benchmarks.ops import embedding_bag_problem as problems
from benchmarks.rows import read_csv

BAGS = BagArrays(np.array([2, 2, 0]), np.array([0, 2, 2, 3]))  # {2, 2}, {}, {0}
GRAD = np.array([[1.0], [10.0], [4.0]], np.float32)


class NumpyProvider(Provider):
    """A right provider, with one thing wrong on demand."""

    name = "numpy"
    runtime = "torch"
    wrong = ""
    timed = 0

    def memory_bytes(self, problem, device, mode, optimizer):
        return problem.table_bytes

    def setup(self, problem, device, mode, optimizer):
        self._problem, self._optimizer = problem, optimizer
        self._tables = [problem.host_table(t).astype(np.float64) for t in range(len(problem.rows))]
        self._sums = [np.zeros_like(table) for table in self._tables]

    def forward(self, i):
        type(self).timed += 1
        outputs = []
        for table, bags in zip(self._tables, self._problem.sets[i], strict=True):
            outputs.append(problems.pool(table[bags.values], bags, self._problem.combiner))
        if self.wrong == "value":
            outputs[0][5] *= 1.01
        if self.wrong == "unwritten":
            outputs[0][3, 0] = np.nan
        if self.wrong == "shape":
            outputs[0] = outputs[0][:-1]
        return outputs

    def full(self, i, g):
        gradients = []
        for t, bags in enumerate(self._problem.sets[i]):
            ids = np.unique(bags.values)
            grad = self._problem.grads_of(g)[t]
            rows = problems.summed_gradient(bags, grad, self._problem.combiner, ids)
            gradients.append((ids[:-1], rows[:-1]) if self.wrong == "missing row" else (ids, rows))
        return gradients

    def update(self, i, g):
        for t, (ids, rows) in enumerate(self.full(i, g)):
            self._sums[t][ids] += rows * rows
            if self.wrong != "no step":
                change = rows / np.sqrt(problems.ADAGRAD_START + self._sums[t][ids])
                self._tables[t][ids] -= problems.LEARNING_RATE * change
        if self.wrong == "moves others":
            others = np.setdiff1d(np.arange(len(self._tables[0])), self._problem.sets[i][0].values)
            self._tables[0][others] -= 1e-3

    def outputs(self, outputs):
        return outputs

    def gradients(self, gradients):
        return gradients

    def read_rows(self, t, ids):
        return self._tables[t][ids].astype(np.float32)


def _run(provider, mode, case="smoke", optimizer=""):
    type(provider).timed = 0
    plan = Plan(bench.CASES[case], "cpu", mode, optimizer, seconds=0.01)
    return run_case(bench, plan, [provider], WallClock(), copy_gbps=10.0, report=lambda line: None)[0]


@pytest.mark.parametrize("case", ["smoke", "smoke_ragged"])
@pytest.mark.parametrize(("mode", "optimizer"), [("forward", ""), ("full", ""), ("update", "adagrad")])
def test_a_right_provider_is_timed(case, mode, optimizer):
    row = _run(NumpyProvider(), mode, case, optimizer)
    assert row.status == "ok", row.reason
    assert row.error < 1e-5
    assert 0 < row.p20_ms <= row.p50_ms <= row.p80_ms
    assert row.gbps_algorithmic == pytest.approx(row.bytes_algorithmic / row.p50_ms / 1e6)
    assert row.share_of_copy == pytest.approx(row.gbps_compulsory / 10.0)


@pytest.mark.parametrize(
    ("mode", "optimizer", "wrong", "reason"),
    [
        ("forward", "", "value", "output 0 differs from the float64 reference"),
        ("forward", "", "unwritten", "not finite"),
        ("forward", "", "shape", r"output 0 must have shape \(64, 16\), it has \(63, 16\)"),
        ("full", "", "missing row", "the gradient of table 0 must have the"),
        ("update", "adagrad", "no step", "update of table 0 differs"),
        ("update", "sgd", "", "update of table 0 differs"),
        ("update", "adagrad", "moves others", "rows of table 0 that no id names must not change"),
    ],
)
def test_a_wrong_provider_is_refused_and_not_timed(mode, optimizer, wrong, reason):
    provider = NumpyProvider()
    provider.wrong = wrong
    row = _run(provider, mode, "smoke", optimizer)
    assert row.status == "refused"
    assert math.isnan(row.p50_ms)
    assert re.search(reason, row.reason), row.reason
    assert type(provider).timed <= 2  # the check's own calls


def test_missing_unsupported_skipped_and_failed_are_told():
    class Missing(NumpyProvider):
        requires = ("no_such_package",)

    class Unsupported(NumpyProvider):
        def unsupported(self, case, device, mode, optimizer):
            return "not today"

    class Huge(NumpyProvider):
        def memory_bytes(self, problem, device, mode, optimizer):
            return 10**15

    class Failing(NumpyProvider):
        def setup(self, problem, device, mode, optimizer):
            raise RuntimeError("broken")

    rows = [_run(kind(), "forward") for kind in (Missing, Unsupported, Huge, Failing)]
    assert [row.status for row in rows] == ["missing", "unsupported", "skipped", "failed"]
    assert rows[0].reason == "no_such_package cannot be imported here"
    assert rows[3].reason == "RuntimeError: broken"


def test_pooling_and_gradient_by_hand():
    rows = np.array([[1.0], [2.0], [8.0]])[BAGS.values]
    assert problems.pool(rows, BAGS, "sum").tolist() == [[16.0], [0.0], [1.0]]
    assert problems.pool(rows, BAGS, "mean").tolist() == [[8.0], [0.0], [1.0]]
    sample = np.array([0, 1, 2])
    assert problems.summed_gradient(BAGS, GRAD, "sum", sample).tolist() == [[4.0], [0.0], [2.0]]
    assert problems.summed_gradient(BAGS, GRAD, "mean", sample).tolist() == [[4.0], [0.0], [1.0]]
    assert problems.summed_gradient(BAGS, GRAD, "sum", sample, power=2).tolist() == [[16.0], [0.0], [2.0]]


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("sgd", 1.0 - 0.01 * (3 + 4)),
        ("adagrad", 1.0 - 0.01 * (3 / 9.1**0.5 + 4 / 25.1**0.5)),
        ("rowwise_adagrad", 1.0 - 0.01 * (3 / 9.1**0.5 + 4 / 25.1**0.5)),
        ("adam", 1.0 - 0.01 * (1 + (0.3 * 0.9 + 0.4) / 0.19 / ((0.009 * 0.999 + 0.016) / 0.001999) ** 0.5)),
    ],
)
def test_two_steps_by_hand(optimizer, expected):
    row = problems.updated_rows(np.array([[1.0]]), [np.array([[3.0]]), np.array([[4.0]])], optimizer)
    assert row[0, 0] == pytest.approx(expected, abs=1e-8)


def test_reference_agrees_with_the_ops_own():
    pytest.importorskip("tensorflow")
    from merlin_models.ops import embedding_bag_reference

    problem = bench.CASES["smoke_ragged"].build()
    tables = [problem.host_table(t) for t in range(2)]
    features = [(bags.values, bags.row_splits, None, None) for bags in problem.sets[0]]
    outputs, gradients, _ = embedding_bag_reference(tables, features, [0, 1], ["mean", "mean"], problem.grads_of(0))
    for t, bags in enumerate(problem.sets[0]):
        np.testing.assert_allclose(problems.pool(tables[t][bags.values], bags, "mean"), outputs[t], atol=1e-12)
        every = np.arange(problem.rows[t])
        mine = problems.summed_gradient(bags, problem.grads_of(0)[t], "mean", every)
        np.testing.assert_allclose(mine, gradients[t], atol=1e-12)


def test_bytes_by_hand():
    case = problems.Case("c", rows=(10,), dims=(4,), hots=(3,), batch=2)
    problem = problems.EmbeddingBagProblem(case)
    unique = len(np.unique(problem.sets[0][0].values))
    inputs = 6 * 8 + 3 * 8
    assert bench.traffic(problem, "forward", "") == (6 * 16 + 2 * 16 + inputs, unique * 16 + 2 * 16 + inputs)
    forward, compulsory = bench.traffic(problem, "forward", "")
    step = bench.traffic(problem, "update", "adagrad")
    assert step[0] - forward == 6 * 16 + 5 * 16 * 6 + unique * (2 * 16 + 2 * 16)
    assert step[1] - compulsory == 2 * 16 + inputs + unique * (2 * 16 + 2 * 16)


def test_mlperf_shape():
    case = bench.CASES["mlperf26_400k_uniform"]
    assert (sum(case.hots), len(case.rows), set(case.dims), case.batch) == (214, 26, {128}, 16_384)
    assert set(bench.CASES["mlperf26_mixed_dims"].dims) == {16, 32, 64, 128}


def test_gather_floor_leaves_its_caller_where_it_may_run():
    table, ids = np.ones((4, 16), np.float32), np.zeros(2, np.int64)
    before = os.sched_getaffinity(0)
    for _ in range(200):  # threads with so little to do end before the next is started
        sum_rows([table], [ids], threads=4)
    assert os.sched_getaffinity(0) == before


def test_gather_floor_sums_rows():
    rng = np.random.default_rng(0)
    tables = [rng.standard_normal((50, dim)).astype(np.float32) for dim in (33, 16)]
    ids = [rng.integers(0, 50, count) for count in (101, 7)]
    for total, table, values in zip(sum_rows(tables, ids, threads=2), tables, ids, strict=True):
        np.testing.assert_allclose(total, table[values].sum(axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("apart", [[], ["--apart"]])
def test_command_line_writes_rows(tmp_path, capsys, apart):
    out = tmp_path / "rows.csv"
    arguments = [
        "embedding_bag",
        "--cases",
        "smoke",
        "--providers",
        "merlin_native",
        "--mode",
        "forward,full",
    ]
    assert run.main([*arguments, *apart, "--seconds", "0.01", "--out", str(out)]) == 0
    rows = [row for row in read_csv(out) if row.provider == "merlin_native"]
    assert {row.mode for row in rows} == {"forward", "forward_backward"}
    assert all(row.status == "ok" and row.versions and row.timestamp and row.device for row in rows)
    assert run.main(["show", str(out)]) == 0
    assert "merlin_native" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "op must have a file"),
        (["embedding_bag", "--cases", "nothing"], "cases must be of"),
        (["embedding_bag", "--providers", "nothing"], "providers must be of"),
        (["embedding_bag", "--device", "cuda", "--providers", "torch,keras"], "need a process each"),
    ],
)
def test_wrong_command_lines(arguments, message):
    with pytest.raises(SystemExit, match=message):
        run.main(arguments)


@pytest.mark.parametrize("name", ["merlin_tf", "merlin_tf_dense", "merlin_tf_loop"])
def test_our_ops_in_tensorflow_pass_the_check(name):
    problem = bench.CASES["smoke"].build()
    provider = load_provider(bench, name)
    provider.setup(problem, "cpu", "update", "adagrad")
    assert bench.check(provider, problem, "update", "adagrad") < 1e-4
    provider.call("update", 0, 0)


@pytest.mark.parametrize("name", ["fbgemm", "fbgemm_v2"])
@pytest.mark.parametrize(("mode", "optimizer"), [("forward", ""), ("update", "adagrad"), ("update", "adam")])
def test_fbgemm_has_no_tables_of_bfloat16(name, mode, optimizer):
    provider = load_provider(bench, name)
    assert "bfloat16 is for outputs alone" in provider.unsupported(bench.CASES["smoke_bf16"], "cuda", mode, optimizer)
    assert "float16" not in provider.unsupported(bench.CASES["smoke_fp16"], "cuda", mode, optimizer)
    assert provider.unsupported(bench.CASES["smoke"], "cuda", mode, optimizer) == ""


@pytest.mark.parametrize("name", ["keras", "keras_rs"])
def test_keras_adagrad_of_more_elements_than_tensorflow_counts(name):
    provider, case = load_provider(bench, name), bench.CASES["t1_40m_d128_hot1"]
    assert "32 bits" in provider.unsupported(case, "cuda", "update", "adagrad")
    assert provider.unsupported(case, "cpu", "update", "adagrad") == ""
    assert provider.unsupported(case, "cuda", "update", "adam") == ""
    assert provider.unsupported(bench.CASES["t1_10m_d128_hot1"], "cuda", "update", "adagrad") == ""


def test_memory_of_a_call_counts_what_setup_made_for_it_and_what_the_last_call_left():
    class Clock(WallClock):
        def peak_extra_bytes(self, call):
            return 1_000_000 if provider.left else 5_000_000

    class Holding(NumpyProvider):
        left = False

        def forward(self, i):
            self.left = True
            return super().forward(i)

        def forget(self):
            self.left = False

        def held_bytes(self):
            return 2_000_000

    provider = Holding()
    plan = Plan(bench.CASES["smoke"], "cpu", "forward", "", seconds=0.01)
    assert run_case(bench, plan, [provider], Clock(), 10.0, lambda line: None)[0].peak_extra_mb == 7.0
    assert math.isnan(_run(Holding(), "forward").peak_extra_mb)  # no allocator tells it on a CPU


@pytest.mark.parametrize(("mode", "optimizer"), [("forward", ""), ("full", ""), ("update", "adagrad")])
def test_native_outputs_and_gradients_are_held(mode, optimizer):
    problem = bench.CASES["smoke"].build()
    provider = load_provider(bench, "merlin_native")
    provider.setup(problem, "cpu", mode, optimizer)
    expected = 4 * 3 * 64 * 16
    if mode == "full":  # float32 rows and int64 ids, as many as there are ids or rows
        room = [max(min(rows, len(bags[t].values)) for bags in problem.sets) for t, rows in enumerate(problem.rows)]
        expected += sum(room) * (16 * 4 + 8)
    assert provider.held_bytes() == expected  # on a CPU there is no workspace


def test_torch_forgets_its_gradients():
    pytest.importorskip("torch")
    provider = load_provider(bench, "torch")
    provider.setup(bench.CASES["smoke"].build(), "cpu", "full", "")
    assert all(grad is not None for grad in provider.full(0, 0))
    provider.forget()
    assert all(table.grad is None for table in provider._tables)
