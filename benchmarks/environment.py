"""The machine and the software that a row was measured on. Imports no framework by itself."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
_PACKAGES = (
    "merlin-models-keras",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "torch",
    "fbgemm-gpu",
    "fbgemm-gpu-cpu",
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


def num_threads() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0))


def available_memory() -> int:
    """Bytes of host memory that a program may take now without pushing others out."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def git_commit() -> str:
    """Short commit of the working tree, with "+" if files differ from it; "none" outside of git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=_REPOSITORY, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return os.environ.get("MERLIN_GIT_COMMIT", "none")
    return commit + ("+" if git("status", "--porcelain") else "")
