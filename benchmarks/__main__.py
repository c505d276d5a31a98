"""Runs all benchmarks or some, each in a process of its own, and writes what came out as tables and pictures.

    python -m benchmarks                                                 # all that a CPU runs
    python -m benchmarks --device cuda                                   # a GPU: PyTorch's and TensorFlow's in turn
    python -m benchmarks --only embedding_bag,loader --quick --out some.csv
    python -m benchmarks --list

Rows go to benchmarks/results/<device>.csv unless --out names a file. A process that fails does not stop the others:
the last lines say which did, and the exit status is 1. One op alone: python -m benchmarks.run.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import sys
import time

from benchmarks import environment, report, suite

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default="", help="names that --list prints, separated by commas")
    parser.add_argument("--skip", default="", help="names to leave out")
    parser.add_argument("--quick", action="store_true", help="small cases, hardly timed: shows that everything runs")
    parser.add_argument("--dtypes", default="", help="of the cases: float32, float16, bfloat16, separated by commas")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing for a provider and case")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for a process")
    parser.add_argument("--out", type=pathlib.Path, help="CSV file to append rows to")
    parser.add_argument("--no-report", action="store_true", help="write rows only")
    parser.add_argument("--list", action="store_true", help="print what would be run, run nothing")
    return parser.parse_args(arguments)


def device_name(device: str) -> str:
    """Of the CPU, or of the first GPU; no framework is loaded for it.

    Raises:
        SystemExit: if there is no nvidia-smi to tell a GPU's name.
    """
    if device == "cpu":
        return environment.cpu_name()
    if shutil.which("nvidia-smi") is None:
        raise SystemExit("nvidia-smi must be on PATH to name the results' file, or --out must be given")
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def chosen(only: str, skip: str) -> list[str]:
    """Names of parts.

    Raises:
        SystemExit: if a name is not known, or none is left.
    """
    wanted, unwanted = (list(filter(None, text.split(","))) for text in (only, skip))
    if unknown := [name for name in (*wanted, *unwanted) if name not in suite.PARTS]:
        raise SystemExit(f"--only and --skip must be of {', '.join(suite.PARTS)}. Received: {', '.join(unknown)}")
    names = [name for name in suite.PARTS if name in (wanted or suite.PARTS) and name not in unwanted]
    if not names:
        raise SystemExit(f"--only {only} --skip {skip} must leave something to run. Received: nothing is left")
    return names


def run_all(processes: dict[str, list[str]], timeout: float) -> dict[str, str]:
    """Runs each; returns what went wrong by the process' name."""
    wrong: dict[str, str] = {}
    for number, (name, arguments) in enumerate(processes.items(), start=1):
        print(f"\n=== {name} ({number} of {len(processes)}): benchmarks.run {' '.join(arguments)}", flush=True)
        start = time.monotonic()
        try:
            code = subprocess.run(
                [sys.executable, "-m", "benchmarks.run", *arguments], cwd=ROOT, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired:
            wrong[name] = f"stopped after {timeout:.0f} s; its rows so far are written"
            continue
        print(f"=== {name}: {time.monotonic() - start:.0f} s", flush=True)
        if code == 1:
            wrong[name] = "a provider was refused or failed, a process was killed, or the command was wrong: see above"
        elif code:
            wrong[name] = f"exit status {code}"
    return wrong


def main(arguments: list[str]) -> int:
    """Runs what the command line says; 1 if anything went wrong."""
    options = parse(arguments)
    names = chosen(options.only, options.skip)
    if options.out:
        out = options.out.resolve()
    elif options.quick:
        out = ROOT / "build/benchmarks/quick.csv"  # not a result
    else:
        out = RESULTS / f"{environment.slug(device_name(options.device))}.csv"
    processes = suite.commands(names, options.device, options.quick, options.seconds, str(out), options.dtypes)
    if options.list:
        for name, command in processes.items():
            print(f"{name}: python -m benchmarks.run {' '.join(command)}")
        print(f"names: {', '.join(suite.PARTS)}")
        return 0
    if left_out := [name for name in names if options.device not in suite.PARTS[name].cases]:
        print(f"not measured on {options.device}: {', '.join(left_out)}")
    wrong = run_all(processes, options.timeout)
    if not options.no_report and out.is_file():
        if out.parent == RESULTS:
            report.main([])
        else:
            report.main([str(out), "--to", str(out.with_suffix(""))])
    print(f"\nrows: {out}")
    for name, what in wrong.items():
        print(f"went wrong: {name}: {what}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
