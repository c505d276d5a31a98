"""Runs providers on a case: set up, check, time, make rows. Knows no op and no framework."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import gc
import importlib
import importlib.util
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import numpy as np

from benchmarks import environment
from benchmarks.clocks import WallClock
from benchmarks.rows import Row, summarize

MODES = {"forward": "forward", "full": "forward_backward", "update": "forward_backward_update"}
MAX_SAMPLES = 50
MIN_SAMPLES = 5
SECONDS_BETWEEN_PROVIDERS = 0.015  # worker threads of the last one spin before they sleep: libgomp's 9 ms
WARMED_BELOW_MS = 100.0  # a shorter call is timed right after one of the same provider, as in a training loop


class Problem(Protocol):
    """A case with its inputs drawn: what a provider is set up on."""

    num_sets: int
    num_grads: int

    def config(self) -> dict[str, Any]: ...


class Provider:
    """One way of computing an op. Frameworks are imported in :meth:`setup`, never at the top of a module.

    A provider offers ``forward(i)``, ``full(i, g)`` (forward, and the gradient of the tables for upstream
    gradient ``g``) and ``update(i, g)`` (a whole training step) on input set ``i``, each without waiting for
    a GPU. What they return is turned into NumPy by ``outputs`` and ``gradients`` for the check.
    """

    name: ClassVar[str]
    runtime: ClassVar[str]  # what drives a GPU: "torch" or "tensorflow"
    requires: ClassVar[tuple[str, ...]] = ()
    is_probe: ClassVar[bool] = False  # measures the machine and not the op: not checked, called by forward alone
    steps_a_call: ClassVar[int] = 1  # that one call of :meth:`call` does; rows tell the time of one
    squares_ids_apart: ClassVar[bool] = False  # its optimizers add the squares of each id's gradient, see docs
    own_process: ClassVar[bool] = False  # computes in one, with whose end its memory is free again
    notes: str = ""

    def missing(self) -> str:
        """What it needs and is not there, or ""; frameworks are not imported to find out."""
        for package in self.requires:
            try:
                found = importlib.util.find_spec(package) is not None
            except ImportError as error:  # a parent package that is not there, or not built
                return f"{package} cannot be imported here: {error}"
            if not found:
                return f"{package} cannot be imported here"
        return ""

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        """Why this provider has no such computation, or ""."""
        return ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        """What it holds and takes at its peak, roughly."""
        raise NotImplementedError

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        raise NotImplementedError

    def forward(self, i: int) -> Any:
        raise NotImplementedError

    def full(self, i: int, g: int) -> Any:
        raise NotImplementedError

    def update(self, i: int, g: int) -> Any:
        raise NotImplementedError

    def held_bytes(self) -> int:
        """Memory of the device beyond inputs, tables and state that :meth:`setup` made for every call to write into: outputs,
        gradients, workspaces. A row counts it as memory of a call, as it does what others take anew in each."""
        return 0

    def forget(self) -> None:
        """Lets go of what the last call left behind and the next one makes anew, so that its memory is seen."""

    def peak_process_bytes(self) -> int | None:
        """The peak of a process of its own, beyond what its framework takes; None for one that works in ours."""
        return None

    def own_times(self, plan: Plan) -> tuple[list[float], dict[str, float]] | None:
        """Milliseconds of calls that it makes itself, several at a time, and numbers for a row's config; None for one whose
        calls the harness makes."""
        return None

    def call(self, mode: str, i: int, g: int) -> Any:
        """One call of a mode ("forward", "full" or "update")."""
        if mode == "forward" or self.is_probe:
            return self.forward(i)
        return self.full(i, g) if mode == "full" else self.update(i, g)


class NotEqual(Exception):
    """A provider's result is not equal to the reference."""


def check_probabilities(answers: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    """The largest difference of a probability from the reference's.

    Raises:
        NotEqual: if it is too large, or there is another number of them.
    """
    if answers.shape != expected.shape:
        raise NotEqual(f"answers have the shape {answers.shape}, the reference's {expected.shape}")
    error = float(np.abs(answers - expected).max())
    if not error <= tolerance:
        raise NotEqual(f"probabilities differ by {error:.3g} from the reference's")
    return error


class Op(Protocol):
    """What a ``bench_<op>`` module offers to the harness, see :func:`run_case`."""

    NAME: str
    PROVIDERS: dict[str, str]  # name -> "module:class"; imported when chosen, and no framework with it before its setup

    def check(self, provider: Provider, problem: Any, mode: str, optimizer: str) -> float: ...

    def traffic(self, problem: Any, mode: str, optimizer: str) -> tuple[int, int]: ...


def load_provider(op: Op, name: str) -> Provider:
    """A fresh provider by its name."""
    module, attribute = op.PROVIDERS[name].split(":")
    return getattr(importlib.import_module(module), attribute)()


@dataclasses.dataclass
class Plan:
    """One line of work for :func:`run_case`."""

    case: Any
    device: str
    mode: str
    optimizer: str
    seconds: float = 1.0  # of timing, for a provider
    memory_bytes: int = 0  # that providers may hold together on a CPU; 0 for 60 % of what is free


@dataclasses.dataclass
class _Ready:
    provider: Provider
    error: float
    peak: int | None
    process_peak: int | None
    inner: int = 1
    samples: int = 0
    warmed: bool = False
    times: list[float] = dataclasses.field(default_factory=list)
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)


def run_case(
    op: Op,
    plan: Plan,
    providers: list[Provider],
    clock: WallClock,
    copy_gbps: float,
    report: Callable[[str], None] = print,
    gemm_tflops: dict[str, float] | None = None,
) -> list[Row]:
    """Times providers on one case and mode.

    On a CPU as many providers as fit into memory are set up together and timed in turns, so that noise of a
    shared machine hits them alike; on a GPU one after the other. Those of TensorFlow come last: what its allocator
    has on a CPU once it keeps for the next of them. Each call takes another of the problem's input sets.

    Args:
        op: checks and byte formulas.
        plan: case, device, mode, optimizer and limits.
        providers: fresh objects; each is set up, used and dropped here.
        clock: of the device.
        copy_gbps: the copy bandwidth measured in this process.
        report: gets a line for each thing worth watching.
        gemm_tflops: the rates of large products measured in this process, by dtype.

    Returns:
        One row for every provider, with numbers or with the reason why there are none.
    """
    base = Row(op.NAME, plan.case.name, "", MODES[plan.mode], plan.optimizer, "ok")
    base.dtype, base.ids = plan.case.dtype, plan.case.ids
    for dtype, rate in (gemm_tflops or {}).items():
        setattr(base, f"gemm_{dtype}_tflops", rate)
    base.copy_gbps, base.device, base.commit = copy_gbps, clock.name(), environment.git_commit()
    base.timestamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    rows: list[Row] = []

    def note(provider: Provider, status: str, reason: str) -> None:
        report(f"  {provider.name}: {status}: {reason}")
        rows.append(dataclasses.replace(base, provider=provider.name, status=status, reason=reason))

    able = []
    for provider in providers:
        if reason := provider.missing():
            note(provider, "missing", reason)
        elif reason := provider.unsupported(plan.case, plan.device, plan.mode, plan.optimizer):
            note(provider, "unsupported", reason)
        else:
            able.append(provider)
    if not able:
        return rows
    try:
        problem = plan.case.build()
    except FileNotFoundError as error:
        for provider in able:
            note(provider, "missing", str(error))
        return rows
    base.bytes_algorithmic, base.bytes_compulsory = op.traffic(problem, plan.mode, plan.optimizer)
    base.config = json.dumps(problem.config(), sort_keys=True)

    def prepare(some: list[Provider]) -> list[_Ready]:
        ready = []
        for provider in some:
            try:
                ready.append(_prepare(op, provider, problem, plan, clock))
            except NotEqual as error:
                note(provider, "refused", str(error))
            except Exception as error:  # whatever a peer raises is its row, and the others go on
                note(provider, "failed", f"{type(error).__name__}: {str(error).strip()[:300]}")
        return ready

    def finish(ready: list[_Ready]) -> None:
        base.versions = json.dumps(environment.versions(), sort_keys=True)
        for one in ready:
            traffic = op.traffic(problem, "forward", "") if one.provider.is_probe else None
            rows.append(_row(base, one, traffic))
            report(f"  {one.provider.name}: {rows[-1].p50_ms:.3f} ms")

    probes = prepare([provider for provider in able if provider.is_probe])
    room = _Room(problem, plan, sum(_memory(one.provider, problem, plan) for one in probes))
    for group in room.groups([provider for provider in able if not provider.is_probe], note):
        ready = prepare(group)
        _time([*probes, *ready], problem, plan, clock)
        finish(ready)
        for provider in group:
            vars(provider).clear()  # its tables
        gc.collect()
    finish(probes)
    for one in probes:
        vars(one.provider).clear()
    return rows


def _memory(provider: Provider, problem: Problem, plan: Plan) -> int:
    return provider.memory_bytes(problem, plan.device, plan.mode, plan.optimizer)


def _keeps_memory(provider: Provider) -> bool:
    """Whether what it held on a CPU stays with the process, for the next one of which this holds."""
    return provider.runtime == "tensorflow" and not provider.own_process


class _Room:
    """The memory of a CPU for the providers of one problem, beside the probes' ``held`` bytes."""

    def __init__(self, problem: Problem, plan: Plan, held: int) -> None:
        self._problem, self._plan, self._held = problem, plan, held
        self._kept = 0  # of earlier groups

    def groups(self, providers: list[Provider], note: Callable) -> Iterator[list[Provider]]:
        """What to hold at one time, in turn: on a CPU as many as fit once the group before has been let go, on a GPU one.
        Those that do not even fit alone are noted; if these are all, there is an empty group, for the probes."""
        if self._plan.device != "cpu":
            yield from [[provider] for provider in providers] or [[]]
            return
        waiting, any_yet = sorted(providers, key=_keeps_memory), False
        while waiting:
            free = (self._plan.memory_bytes or int(environment.available_memory() * 0.6)) - self._held
            group: list[Provider] = []
            while waiting and self._new_bytes([*group, waiting[0]]) <= free:
                group.append(waiting.pop(0))
            if group:
                any_yet = True
                yield group
                self._kept = max(self._kept, self._bytes(group, keeps=True))
            else:
                need = _memory(waiting[0], self._problem, self._plan)
                note(waiting.pop(0), "skipped", f"needs about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are allowed")
        if not any_yet:
            yield []

    def _new_bytes(self, group: list[Provider]) -> int:
        return self._bytes(group, keeps=False) + max(0, self._bytes(group, keeps=True) - self._kept)

    def _bytes(self, group: list[Provider], keeps: bool) -> int:
        return sum(_memory(each, self._problem, self._plan) for each in group if _keeps_memory(each) == keeps)


def _prepare(op: Op, provider: Provider, problem: Problem, plan: Plan, clock: WallClock) -> _Ready:
    if watched := plan.device == "cpu":
        for package in provider.requires:
            importlib.import_module(package)  # so that a framework's own memory does not count for who comes first
        gc.collect()
        watched = environment.reset_peak_memory()
        before = environment.memory_of_process("VmRSS")
    provider.setup(problem, plan.device, plan.mode, plan.optimizer)
    error = np.nan if provider.is_probe else op.check(provider, problem, plan.mode, plan.optimizer)

    def call(i: int = 0) -> Any:
        return provider.call(plan.mode, i, i % problem.num_grads)

    warm = [clock.sample(functools.partial(call, i)) for i in range(problem.num_sets)]
    provider.forget()
    peak = clock.peak_extra_bytes(call)
    if peak is not None:
        peak += provider.held_bytes()
    process_peak = provider.peak_process_bytes()
    if process_peak is None and watched:
        process_peak = max(0, environment.memory_of_process("VmHWM") - before)
    estimate = warm[-1] if plan.device == "cpu" else clock.sample(call, inner=3)
    one = _Ready(provider, error, peak, process_peak)
    # A sample on a GPU lasts so long that a host's time before the first kernel does not count as that of every step; on a
    # CPU it is one call, or what a clock's tick needs.
    one.inner = max(1, min(100, round((20.0 if plan.device == "cuda" else 0.2) / estimate)))
    one.warmed = plan.device == "cpu" and estimate < WARMED_BELOW_MS
    one.samples = int(
        np.clip(plan.seconds * 1e3 / (estimate * one.inner), MIN_SAMPLES if estimate < 1e3 else 3, MAX_SAMPLES)
    )
    return one


def _time(ready: list[_Ready], problem: Problem, plan: Plan, clock: WallClock) -> None:
    for one in ready:
        if own := one.provider.own_times(plan):
            one.times, one.numbers = own
            one.samples = 0
    rounds = max((one.samples for one in ready), default=0)
    for r in range(rounds):
        for place, one in enumerate(ready):
            # spread a slow provider's few samples over all rounds
            if (r + 1) * one.samples // rounds == r * one.samples // rounds:
                continue

            sets = itertools.cycle(range(problem.num_sets))
            for _ in range((r + place) % problem.num_sets):
                next(sets)

            def call(provider: Provider = one.provider, sets: Iterator[int] = sets) -> None:
                i = next(sets)
                provider.call(plan.mode, i, i % problem.num_grads)

            if len(ready) > 1:
                time.sleep(SECONDS_BETWEEN_PROVIDERS)
                if one.warmed:
                    call()
            one.times.append(clock.sample(call, one.inner) / one.provider.steps_a_call)


def _row(base: Row, one: _Ready, probe_traffic: tuple[int, int] | None) -> Row:
    row = dataclasses.replace(base, provider=one.provider.name, error=one.error, **summarize(one.times))
    if probe_traffic:
        row.bytes_algorithmic, row.bytes_compulsory = probe_traffic
    row.gbps_algorithmic = row.bytes_algorithmic / row.p50_ms / 1e6
    row.gbps_compulsory = row.bytes_compulsory / row.p50_ms / 1e6
    row.share_of_copy = row.gbps_compulsory / row.copy_gbps
    row.peak_extra_mb = np.nan if one.peak is None else one.peak / 1e6
    row.peak_process_mb = np.nan if one.process_peak is None else one.process_peak / 1e6
    calls = one.inner * one.provider.steps_a_call
    config = {**json.loads(base.config), "calls_a_sample": calls, **one.numbers}
    if one.provider.notes:
        config["notes"] = one.provider.notes
    row.config = json.dumps(config, sort_keys=True)
    return row
