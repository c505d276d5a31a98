"""Counts the instructions of the CPU kernels at fixed inputs: a check of speed that does not depend on a quiet machine.

    python -m benchmarks.instruction_counts            # counts, and compares with the committed figures
    python -m benchmarks.instruction_counts --update   # writes them, to be committed with what changed them

The installed kernels run once under valgrind's callgrind, in one thread, by their AVX2 path, the widest that it knows.
Counts belong to a compiler: figures are kept by the one that built the kernels, its name and first number.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = pathlib.Path(__file__).with_suffix(".cc")
FIGURES = ROOT / "benchmarks/results/instruction_counts.json"
TOLERANCE = 0.05


class Unavailable(Exception):
    """Instructions cannot be counted on this machine; says why."""


def installed_kernels() -> pathlib.Path:
    """The library of kernels that Python imports."""
    import merlin_models

    return pathlib.Path(merlin_models.__file__).with_name("libmerlin_kernels.so")


def compiler() -> str:
    """What built the installed kernels, as "GNU 12"."""
    names: dict[str, str] = {}
    info = installed_kernels().with_name("_build_info.py")
    exec(compile(info.read_text(), str(info), "exec"), names)
    return names["CXX_COMPILER"].split(".")[0]


def count(kernels: pathlib.Path) -> dict[str, int]:
    """Instructions by kernel.

    Args:
        kernels: a libmerlin_kernels.so.

    Raises:
        Unavailable: if there is no valgrind or g++, or no AVX2.
        RuntimeError: if the program cannot be built or fails.
    """
    for tool in ("valgrind", "g++"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is not on PATH (a package of the system's of that name has it)")
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        program = folder / "program"
        # A tail call would leave a counted function before its kernel runs.
        build = ["g++", "-std=c++17", "-O1", "-fno-optimize-sibling-calls", "-I", str(ROOT / "csrc"), str(SOURCE)]
        _run([*build, str(kernels), "-pthread", f"-Wl,-rpath,{kernels.parent}", "-o", str(program)])
        names = re.findall(r"^COUNTED void (count_\w+)\(", SOURCE.read_text(), re.MULTILINE)
        options = ["--collect-atstart=no", "--toggle-collect=count_*", *(f"--dump-after={name}" for name in names)]
        out = f"--callgrind-out-file={folder}/counts"
        printed = _run(["valgrind", "--tool=callgrind", *options, out, str(program)])
        if printed.strip() != "avx2":
            raise Unavailable(f"valgrind shows a processor whose kernels are {printed.strip()}, not avx2")
        return dict(filter(None, (_parse(file.read_text()) for file in sorted(folder.glob("counts.*")))))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return done.stdout


def _parse(text: str) -> tuple[str, int] | None:
    """Kernel and instructions of one of callgrind's files; None for what it writes at the end."""
    trigger = re.search(r"^desc: Trigger: --dump-after=count_(\w+)", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    return (trigger[1], int(total[1])) if trigger and total else None


def differences(counts: dict[str, int], figures: dict[str, int]) -> list[str]:
    """One line for each kernel that is not within the tolerance of its figure, or not in both."""
    lines = []
    for name in sorted({*counts, *figures}):
        if name not in figures or name not in counts:
            lines.append(f"{name}: {counts.get(name, 'not counted')}, the figure is {figures.get(name, 'missing')}")
        elif abs(counts[name] / figures[name] - 1) > TOLERANCE:
            change = 100 * (counts[name] / figures[name] - 1)
            lines.append(f"{name}: {counts[name]:,} instructions, {change:+.1f} % of {figures[name]:,}")
    return lines


def figures_of(compiler: str) -> dict[str, int] | None:
    """The committed figures; None for a compiler that has none."""
    return json.loads(FIGURES.read_text()).get(compiler) if FIGURES.is_file() else None


def main(arguments: list[str]) -> int:
    """Compares, or updates; 1 if a kernel is not within the tolerance."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instruction_counts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--update", action="store_true", help="write the figures of this compiler")
    parser.add_argument("--kernels", type=pathlib.Path, help="a libmerlin_kernels.so; by default the installed one")
    options = parser.parse_args(arguments)
    try:
        counts = count(options.kernels or installed_kernels())
    except Unavailable as error:
        print(f"instructions cannot be counted here: {error}", file=sys.stderr)
        return 1
    built_by = compiler()
    figures = figures_of(built_by)
    for name, instructions in counts.items():
        before = (figures or {}).get(name)
        print(f"{name:42} {instructions:12,}" + (f" {100 * (instructions / before - 1):+.2f} %" if before else ""))
    if options.update:
        known = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
        FIGURES.write_text(json.dumps({**known, built_by: counts}, indent=2, sort_keys=True) + "\n")
        return 0
    if figures is None:
        print(f"there are no figures for kernels built by {built_by}: --update writes them", file=sys.stderr)
        return 1
    lines = differences(counts, figures)
    print(*lines, sep="\n", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
