"""``python -m benchmarks``: its parts name what there is, a failure does not stop the others, and peers apart."""

from __future__ import annotations

import importlib
import json
import subprocess

import numpy as np
import pytest

import benchmarks.__main__ as command
from benchmarks import environment, harness, run, suite
from benchmarks.clocks import WallClock
from benchmarks.harness import Plan, Provider, load_provider, run_case
from benchmarks.models import bench_two_tower
from benchmarks.ops import bench_inbatch_softmax
from benchmarks.peers import merlin_models_23


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_process_names_cases_modes_and_providers_that_there_are(device, quick):
    processes = suite.commands(list(suite.PARTS), device, quick, 1.0, "out.csv")
    assert len(processes) >= len([part for part in suite.PARTS.values() if device in part.cases])
    for name, arguments in processes.items():
        options = run.parse(arguments)
        part = suite.PARTS[name.split(" ")[0]]
        op = importlib.import_module(part.module)
        groups = {group: [case.name] for case in op.CASES.values() for group in case.groups}
        assert run.choose(options.cases, op.CASES, "cases", groups), name
        assert set(options.mode.split(",")) <= set(run.MODES)
        assert not op.OPTIMIZERS or set(options.optimizers.split(",")) <= set(op.OPTIMIZERS)
        runtimes = {run.load_provider(op, provider).runtime for provider in options.providers.split(",")}
        assert len(runtimes) == 1 or device == "cpu"
        assert options.apart == (device == "cpu" and not quick)


@pytest.mark.parametrize(
    ("op", "names"),
    {
        "ops.bench_embedding_bag": "torch torch_compile fbgemm tf_lookup tf_lookup_eager tf_xla keras keras_rs",
        "ops.bench_dot_interaction": "torch torch_compile tf tf_eager tf_xla keras_rs",
        "ops.bench_inbatch_softmax": "torch torch_compile tf tf_eager tf_xla cut_cross_entropy liger",
        "models.bench_two_tower": "keras keras_xla merlin_models_23.12",
        "models.bench_dlrm": "keras torch",
        "loader.bench_loader": "merlin_dataloader",
    }.items(),
)
def test_peers_are_there(op, names):
    assert set(names.split()) <= set(importlib.import_module(f"benchmarks.{op}").PROVIDERS)


def test_names_are_checked():
    assert command.chosen("loader,embedding_bag", "") == ["embedding_bag", "loader"]
    assert "dlrm" not in command.chosen("", "dlrm")
    with pytest.raises(SystemExit, match=r"must be of embedding_bag, .* Received: nothing_such"):
        command.chosen("nothing_such", "")
    with pytest.raises(SystemExit, match="must leave something to run"):
        command.chosen("loader", "loader")


def test_what_is_not_measured_on_a_gpu_says_so():
    with pytest.raises(SystemExit, match="serving_http must have cases and providers for --device cuda"):
        run.main(["serving_http", "--device", "cuda"])


def test_what_fails_is_told_and_the_rest_runs(capfd):
    wrong = command.run_all({"bad": ["nothing_such"], "good": ["loader", "--list"], "slow": ["loader", "--list"]}, 60.0)
    assert list(wrong) == ["bad"]
    assert "merlin_dataloader" in capfd.readouterr().out
    assert command.run_all({"slow": ["loader", "--list"]}, 0.01) == {
        "slow": "stopped after 0 s; its rows so far are written"
    }


DIES = """
import os
import signal
from benchmarks.harness import Provider
from benchmarks.ops.bench_embedding_bag import *
from benchmarks.ops.bench_embedding_bag import traffic

class Dies(Provider):
    name, runtime = "dies", "torch"
    def memory_bytes(self, *arguments): return 0
    def setup(self, *arguments): os.kill(os.getpid(), signal.SIGKILL)

PROVIDERS = {"dies": "bench_dies:Dies"}
"""


def test_a_process_that_is_killed_has_no_rows_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "bench_dies.py").write_text(DIES)
    monkeypatch.syspath_prepend(tmp_path)
    case = importlib.import_module("benchmarks.ops.bench_embedding_bag").CASES["smoke"]
    assert run.measure_apart("bench_dies", ["dies"], Plan(case, "cpu", "forward", ""), 1.0, {}) is None

    measured = iter([None, []])
    monkeypatch.setattr(run, "measure_apart", lambda *arguments: next(measured))
    arguments = ["embedding_bag", "--cases", "smoke_fp16", "--mode", "forward,full", "--providers", "merlin_native"]
    assert run.main([*arguments, "--apart"]) == 1
    assert "killed: the process of smoke_fp16 (forward ): it has no rows" in capsys.readouterr().err
    assert next(measured, "all asked for") == "all asked for"


def test_providers_that_fit_into_memory_are_held_together():
    def provider(name, runtime, gigabytes, **attributes):
        memory = {"memory_bytes": lambda self, *arguments: int(gigabytes * 1e9)}
        return type(name, (Provider,), {"name": name, "runtime": runtime, **memory, **attributes})()

    providers = [
        provider("a", "tensorflow", 6),
        provider("b", "torch", 5),
        provider("c", "tensorflow", 3),
        provider("d", "tensorflow", 8),
        provider("huge", "tensorflow", 30),
        provider("e", "tensorflow", 4, own_process=True),
    ]
    room = harness._Room(None, Plan(None, "cpu", "forward", "", memory_bytes=10 * 10**9), held=10**9)
    told = []
    groups = [[each.name for each in group] for group in room.groups(providers, lambda *what: told.append(what))]
    assert groups == [["b", "e"], ["a", "c"], ["d"]]  # 9 GB kept of a and c are there for d
    assert [(each.name, status, reason) for each, status, reason in told] == [
        ("huge", "skipped", "needs about 30.0 GB, 9.0 GB are allowed")
    ]
    assert list(room.groups([provider("huge", "torch", 30)], lambda *what: None)) == [[]]  # the probes alone
    room = harness._Room(None, Plan(None, "cuda", "forward", ""), 0)
    two = [provider("a", "torch", 99), provider("b", "torch", 99)]
    assert list(room.groups(two, print)) == [two[:1], two[1:]]  # on a GPU one at a time


def test_dtypes_choose_cases(capsys):
    arguments = ["inbatch_softmax", "--cases", "plain", "--dtypes", "float16"]
    assert run.main(arguments) == 0
    assert "no case of inbatch_softmax is of float16" in capsys.readouterr().out


def test_a_row_has_the_machines_rates_and_the_process_peak():
    class Large(Provider):
        name, runtime = "large", "torch"

        def memory_bytes(self, problem, device, mode, optimizer):
            return 0

        def setup(self, problem, device, mode, optimizer):
            self.problem = problem
            np.ones(100 << 20, np.uint8).sum()

        def forward(self, i):
            return self.problem.expected()[0]

        def outputs(self, losses):
            return losses

    case = bench_inbatch_softmax.CASES["b64_d16_fp32"]
    clock = WallClock()
    [row] = run_case(
        bench_inbatch_softmax,
        Plan(case, "cpu", "forward", "", 0.001),
        [Large()],
        clock,
        10.0,
        lambda line: None,
        clock.gemm_tflops(),
    )
    assert row.status == "ok", row.reason
    assert 100 < row.peak_process_mb < 160
    assert 0.001 < row.gemm_float32_tflops < 100


@pytest.mark.parametrize("name", ["smoke_scale_catalogue_128", "b64_d16_fp32"])
def test_more_candidates_than_queries_by_hand(name):
    problem = bench_inbatch_softmax.CASES[name].build()
    q, k = problem.queries().astype(np.float64), problem.candidates().astype(np.float64)
    ids, rows = problem.ids(), np.arange(problem.batch)
    scores = q @ k.T / 0.05 - problem.log_q()
    positive = scores[rows, rows]
    scores[(ids[: problem.batch, None] == ids)] = -np.inf
    scores[rows, rows] = positive
    weights = np.exp(scores - positive[:, None])
    total = weights.sum(axis=1)
    errors = weights / total[:, None]
    errors[rows, rows] -= 1
    loss, of_queries, of_candidates = problem.expected()
    np.testing.assert_allclose(loss, np.log(total), rtol=1e-6)
    np.testing.assert_allclose(of_queries, errors @ k / 0.05 / problem.batch, rtol=1e-5, atol=1e-9)
    expected = errors.T @ q / 0.05 / problem.batch
    np.testing.assert_allclose(of_candidates, expected[: problem.block], rtol=1e-5, atol=1e-9)


def test_rows_in_the_results_folder_are_no_change_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_REPOSITORY", tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "benchmarks/results/a.csv").write_text("a")
    commit = environment.git_commit.__wrapped__  # it is asked once in a process
    assert not commit().endswith("+")
    (tmp_path / "benchmarks/b.py").write_text("b")
    assert commit().endswith("+")


def _environment(tmp_path, monkeypatch, script):
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/bash\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setenv("MERLIN_MODELS_23", str(tmp_path))


def _two_tower():
    plan = Plan(bench_two_tower.CASES["two_tower_ml1m_b256"], "cpu", "update", "adam", seconds=0.01)
    return run_case(bench_two_tower, plan, [merlin_models_23.TwoTower()], WallClock(), 10.0, lambda line: None)[0]


def test_the_older_library_is_missing_without_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MERLIN_MODELS_23", str(tmp_path))
    row = _two_tower()
    assert row.status == "missing"
    assert "python3.11 -m benchmarks.peers.merlin_models_23 builds it" in row.reason


def test_the_older_librarys_process_is_asked_for_steps(tmp_path, monkeypatch):
    loss = bench_two_tower.CASES["two_tower_ml1m_b256"].build().loss
    answers = f"""echo '{json.dumps({"merlin-models": "23.12.0"})}'
loss={loss}
while read command; do
  if [ "$command" = step ]; then echo "{{\\"loss\\": $loss}}"; loss=1.0; else echo '{{"bytes": 5000000}}'; fi
done"""
    _environment(tmp_path, monkeypatch, answers)
    row = _two_tower()
    assert row.status == "ok", row.reason
    assert row.peak_process_mb == 5
    assert "merlin-models 23.12.0" in json.loads(row.config)["notes"]


def test_a_process_that_ends_is_a_failed_row(tmp_path, monkeypatch):
    _environment(tmp_path, monkeypatch, "echo no such module >&2; exit 1")
    row = _two_tower()
    assert row.status == "failed"
    assert "the process of merlin-models 23.12 ended: no such module" in row.reason


def test_the_older_librarys_first_kernel_has_all_rows():
    rows = merlin_models_23._rows_of_top(8)
    assert sorted(rows) == list(range(8 + 27 * 26 // 2))
    assert rows[8] == 8 + 1 + 1  # its first pair: features 0 and 1, ours 1 and 2
    assert rows[8 + 25] == 8  # its feature 0 and the bottom's output, ours 1 and 0


def test_the_environment_needs_an_older_python(monkeypatch, tmp_path):
    monkeypatch.setattr(merlin_models_23.sys, "version_info", (3, 13, 1))
    with pytest.raises(RuntimeError, match=r"Python must be 3\.10 or 3\.11"):
        merlin_models_23.build(tmp_path)


@pytest.mark.parametrize("optimizer", ["adagrad", "rowwise_adagrad"])
def test_ten_million_rows_on_a_cpu_have_peers_in_the_memory_of_a_small_machine(optimizer):
    part = suite.PARTS["embedding_bag"]
    assert optimizer in part.optimizers["cpu"].split(",")
    op = importlib.import_module(part.module)
    case = op.CASES["cpu_rows_10m"]
    assert part.cases["cpu"] in case.groups
    problem, allowed = case.build(), int(0.6 * 22e9)  # of what is free, as run_case has it
    held = load_provider(op, "gather_floor").memory_bytes(problem, "cpu", "update", optimizer)
    for name in ("merlin_native", "merlin_tf", "fbgemm", "tf_lookup", "tf_segment"):
        provider = load_provider(op, name)
        assert provider.unsupported(case, "cpu", "update", optimizer) == ""
        assert held + provider.memory_bytes(problem, "cpu", "update", optimizer) < allowed
