"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, for every instruction set of this machine."""

from __future__ import annotations

import concurrent.futures
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "csrc"
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
OPS = ["embedding_bag", "dot_interaction", "inbatch_softmax"]


def _flags(source: pathlib.Path) -> list[str]:
    """Those of the instruction set that a file is for."""
    return AVX512 if source.stem.endswith("_avx512") else AVX2 if source.stem.endswith("_avx2") else []


def _sources(op: str) -> list[pathlib.Path]:
    """What CMake compiles into the kernels without CUDA."""
    text = (SOURCES / op / "CMakeLists.txt").read_text()
    listed = re.search(r"target_sources\(merlin_kernels PRIVATE ([^)]*)\)", text)
    return [SOURCES / "common/parallel.cc", *(SOURCES / op / name for name in listed.group(1).split())]


def _compiler(folder: pathlib.Path, flags: list[str]) -> str:
    """g++; skips the test where what it makes with these flags does not run."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ compiles the kernels with sanitizers")
    probe = folder / "probe.cc"
    probe.write_text("int main() {}\n")
    for command in ([compiler, *flags, probe, "-o", folder / "probe"], [folder / "probe"]):
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("g++ has no sanitizer runtime on this machine")
    return compiler


@pytest.fixture(params=OPS)
def program(request, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("sanitized")
    compiler = _compiler(folder, FLAGS)

    def compile_one(source: pathlib.Path) -> pathlib.Path:
        made = folder / (source.stem + ".o")
        command = [compiler, *FLAGS, *_flags(source), "-w", "-I", SOURCES, "-c", source, "-o", made]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return made

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        exercise = pathlib.Path(__file__).with_name(f"exercise_{request.param}.cc")
        objects = list(pool.map(compile_one, [*_sources(request.param), exercise]))
    program = folder / "exercise"
    done = subprocess.run([compiler, *FLAGS, *objects, "-pthread", "-o", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def test_kernels_are_clean(program):
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "exercised" in done.stdout


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_threads_are_clean(tmp_path, sanitizers):
    flags = [flag.replace("address,undefined", sanitizers) for flag in FLAGS]
    compiler = _compiler(tmp_path, flags)
    sources = [SOURCES / "common/parallel.cc", pathlib.Path(__file__).with_name("exercise_parallel.cc")]
    program = tmp_path / "program"
    subprocess.run([compiler, *flags, "-I", SOURCES, *sources, "-o", program, "-pthread"], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "exercised" in done.stdout
