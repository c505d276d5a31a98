"""The machine and the software that a row was measured on. Imports no framework by itself."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
_PACKAGES = (
    "merlin-models-keras",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "keras-rs",
    "torch",
    "fbgemm-gpu",
    "fbgemm-gpu-cpu",
    "cut-cross-entropy",
    "liger-kernel",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "merlin-dataloader",
    "numpy",
)


def versions() -> dict[str, str]:
    """Installed versions by package, Python's, and CUDA's where a loaded framework knows it."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    build_info = _REPOSITORY / "merlin_models/_build_info.py"
    if build_info.is_file():
        names: dict[str, str] = {}
        exec(compile(build_info.read_text(), str(build_info), "exec"), names)
        found["merlin_models"] = names["VERSION"]
    if torch := sys.modules.get("torch"):
        found["torch"] = torch.__version__
        if torch.version.cuda:
            found["cuda_torch"] = torch.version.cuda
    if tf := sys.modules.get("tensorflow"):
        found["tensorflow"] = tf.version.VERSION
        if cuda := tf.sysconfig.get_build_info().get("cuda_version"):
            found["cuda_tensorflow"] = str(cuda)
    return found


def cpu_name() -> str:
    """Model of the processor with the number of logical cores that this process may use."""
    model = platform.processor() or platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {num_threads()} threads"


def slug(name: str) -> str:
    """A device's name as that of a file: "NVIDIA H100 80GB HBM3" is nvidia-h100-80gb-hbm3."""
    name = re.sub(r"\((R|TM)\)", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def num_threads() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0))


def available_memory() -> int:
    """Bytes of host memory that a program may take now without pushing others out."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def memory_of_process(field: str, process: int | None = None) -> int:
    """Bytes of a field of /proc/PID/status: "VmRSS", what a process has in memory now; "VmHWM", its most so far."""
    for line in pathlib.Path(f"/proc/{process or 'self'}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"field must be one of /proc/self/status. Received: {field}")


def reset_peak_memory() -> bool:
    """Lets VmHWM begin anew at VmRSS, after freed memory went back to the system; False where that is not allowed."""
    ctypes.CDLL(None).malloc_trim(0)
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@functools.cache
def git_commit() -> str:
    """Short commit of the working tree at the first call, with "+" if files differ from it; "none" outside of git.

    Rows and what is generated from them do not count: a run that writes rows does not change what it measures.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return os.environ.get("MERLIN_GIT_COMMIT", "none")
    generated = (":(exclude)benchmarks/results", ":(exclude)docs/benchmarks")
    return commit + ("+" if git("status", "--porcelain", "--", ".", *generated) else "")
