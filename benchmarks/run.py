"""Command line of one op's benchmarks; all of them: ``python -m benchmarks``.

On a CPU, all providers in turns:
    python -m benchmarks.run embedding_bag --mode forward,update --out cpu.csv
On a GPU, a process without TensorFlow, then one with it, then all rows side by side:
    python -m benchmarks.run embedding_bag --device cuda --providers @torch --out gpu.csv
    python -m benchmarks.run embedding_bag --device cuda --providers @tensorflow --out gpu.csv
    python -m benchmarks.run show gpu.csv
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import importlib.util
import multiprocessing
import pathlib
import sys
import time

from benchmarks.clocks import WallClock, make_clock
from benchmarks.harness import MODES, Plan, load_provider, run_case
from benchmarks.rows import Row, print_rows, read_csv, set_ratios, write_csv

_DTYPES = ("float32", "float16", "bfloat16")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("op", help="an op or model that benchmarks/*/bench_<op>.py describes, or 'show'")
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="for 'show': the CSV files")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mode", default="forward", help=f"of {', '.join(MODES)}, separated by commas")
    parser.add_argument("--optimizers", default="adagrad", help="for mode update, separated by commas")
    parser.add_argument("--cases", default="", help="names or groups (cpu, cuda, smoke); by default the device's")
    parser.add_argument("--providers", default="", help="names, or @torch / @tensorflow for all that one drives")
    parser.add_argument("--dtypes", default="", help="of the cases, separated by commas; by default all")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing for a provider and case")
    parser.add_argument("--memory-gb", type=float, default=0.0, help="that providers may hold together on a CPU")
    parser.add_argument(
        "--apart", action="store_true", help="a process for each case, mode and optimizer, whose end frees all memory"
    )
    parser.add_argument("--list", action="store_true", help="print cases and providers, measure nothing")
    parser.add_argument("--out", type=pathlib.Path, help="CSV file to append rows to")
    return parser.parse_args(arguments)


def choose(text: str, known: dict[str, object], what: str, groups: dict[str, list[str]]) -> list[str]:
    """Names of a comma-separated list, in the order of ``known``; a group's name stands for its members.

    Raises:
        SystemExit: if a name is not known.
    """
    chosen: set[str] = set()
    for name in filter(None, text.split(",")):
        if name not in known and name not in groups:
            raise SystemExit(f"{what} must be of {', '.join([*known, *groups])}. Received: {name}")
        chosen.update(groups.get(name, [name]))
    return [name for name in known if name in chosen]


def measure(
    module: str, names: list[str], plan: Plan, copy_gbps: float, gemm: dict[str, float], clock: WallClock | None = None
) -> list[Row]:
    """One row for each provider of the op that a module describes; see ``run_case``."""
    op = importlib.import_module(module)
    providers = [load_provider(op, name) for name in names]
    clock = clock or make_clock(plan.device, providers[0].runtime)
    return run_case(op, plan, providers, clock, copy_gbps, lambda line: print(line, flush=True), gemm)


def measure_apart(
    module: str, names: list[str], plan: Plan, copy_gbps: float, gemm: dict[str, float]
) -> list[Row] | None:
    """The same in a process of its own; None if it was killed, as for memory that ran out."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        try:
            return pool.submit(measure, module, names, plan, copy_gbps, gemm).result()
        except concurrent.futures.process.BrokenProcessPool:
            return None


def main(arguments: list[str]) -> int:
    """Runs what the command line says; 1 if a provider was refused or failed, or a process was killed."""
    options = parse(arguments)
    if options.op == "show":
        rows = [row for file in options.files for row in read_csv(file)]
        set_ratios(rows)
        print_rows(rows)
        return 0
    modules = [f"benchmarks.{folder}.bench_{options.op}" for folder in ("ops", "models", "loader")]
    found = [module for module in modules if importlib.util.find_spec(module)]
    if not found:
        raise SystemExit(
            f"op must have a file bench_<op>.py in benchmarks/ops, models or loader. Received: {options.op}"
        )
    op = importlib.import_module(found[0])
    all_providers = {name: load_provider(op, name) for name in op.PROVIDERS}
    if options.list:
        for case in op.CASES.values():
            print(f"{case.name:30} {','.join(case.groups)}")
        print(f"providers: {', '.join(f'{name} ({p.runtime})' for name, p in all_providers.items())}")
        return 0

    case_groups: dict[str, list[str]] = {}
    for case in op.CASES.values():
        for group in case.groups:
            case_groups.setdefault(group, []).append(case.name)
    cases = choose(options.cases or ",".join(op.DEFAULT_CASES[options.device]), op.CASES, "cases", case_groups)
    if options.dtypes:
        dtypes = choose(options.dtypes, dict.fromkeys(_DTYPES), "dtypes", {})
        cases = [name for name in cases if op.CASES[name].dtype in dtypes or op.CASES[name].dtype not in _DTYPES]
        if not cases:
            print(f"no case of {options.op} is of {options.dtypes}: nothing to measure")
            return 0
    runtimes = {
        f"@{runtime}": [name for name, provider in all_providers.items() if provider.runtime == runtime]
        for runtime in ("torch", "tensorflow")
    }
    default = "@torch" if options.device == "cuda" else "@torch,@tensorflow"
    names = choose(options.providers or default, all_providers, "providers", runtimes)
    if not cases or not names:
        raise SystemExit(f"{options.op} must have cases and providers for --device {options.device}. Received: none")
    chosen_runtimes = {all_providers[name].runtime for name in names}
    if options.device == "cuda" and len(chosen_runtimes) > 1:
        raise SystemExit("On cuda, providers driven by torch and by tensorflow need a process each: choose one of them")
    modes = choose(options.mode, MODES, "mode", {})
    able = getattr(op, "ABLE", tuple(MODES) if op.OPTIMIZERS else ("forward", "full"))
    if not set(modes) <= set(able):
        raise SystemExit(f"--mode must be of {', '.join(able)} for {options.op}. Received: {options.mode}")
    optimizers = choose(options.optimizers, dict.fromkeys(op.OPTIMIZERS), "optimizers", {}) if op.OPTIMIZERS else [""]

    clock = make_clock(options.device, chosen_runtimes.pop())
    copy_gbps, gemm = clock.copy_gbps(), clock.gemm_tflops()
    rates = ", ".join(f"{rate:.3g} TFLOP/s {dtype}" for dtype, rate in gemm.items())
    print(f"{clock.name()}: copies {copy_gbps:.1f} GB/s (read + write), products {rates}")
    rows: list[Row] = []
    killed: list[str] = []
    start = time.monotonic()
    for name in cases:
        for mode in modes:
            for optimizer in optimizers if mode == "update" else [""]:
                print(f"{name} {mode} {optimizer} (at {time.monotonic() - start:.0f} s)", flush=True)
                plan = Plan(
                    op.CASES[name],
                    options.device,
                    mode,
                    optimizer,
                    options.seconds,
                    int(options.memory_gb * 1e9),
                )
                if options.apart:
                    measured = measure_apart(found[0], names, plan, copy_gbps, gemm)
                else:
                    measured = measure(found[0], names, plan, copy_gbps, gemm, clock)
                if measured is None:
                    killed.append(f"{name} ({mode} {optimizer})")
                new = measured or []
                set_ratios(new)
                rows += new
                if options.out:
                    write_csv(options.out, new)
    print_rows(rows)
    bad = [row for row in rows if row.status in ("refused", "failed")]
    for row in bad:
        print(
            f"{row.status}: {row.provider} on {row.case} ({row.mode} {row.optimizer}): {row.reason}",
            file=sys.stderr,
        )
    for what in killed:
        print(f"killed: the process of {what}: it has no rows", file=sys.stderr)
    return 1 if bad or killed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
