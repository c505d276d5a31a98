"""Loads the compiled libraries, once each.

Two of them are loaded from Python: the TensorFlow ops (``libmerlin_tf_ops.so``), and ``merlin_models._C``, the same
kernels on NumPy and DLPack arrays, which needs no TensorFlow.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pathlib
from types import ModuleType
from typing import Any

from merlin_models import _build_info

_FOLDER = pathlib.Path(_build_info.__file__).parent


@functools.cache
def module() -> ModuleType:
    """The Python module of the kernels, without TensorFlow.

    Returns:
        The module ``merlin_models._C``: functions on NumPy arrays and on what has ``__dlpack__``, see docs/ops.

    Example:
        >>> from merlin_models import _native
        >>> _native.module().cpu_instruction_set() in ("baseline", "avx2", "avx512")
        True
    """
    return importlib.import_module("merlin_models._C")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def check_tensorflow_version(installed: str, built_for: str = _build_info.TENSORFLOW) -> None:
    """Raises ImportError if ops built for one TensorFlow would be loaded into another.

    TensorFlow keeps no binary compatibility between minor versions.
    """
    if _minor(installed) != _minor(built_for):
        raise ImportError(
            f"merlin_models was built for TensorFlow {_minor(built_for)}.*, but TensorFlow {installed} is installed. "
            f"Install tensorflow-cpu=={_minor(built_for)}.* (or tensorflow=={_minor(built_for)}.* for GPUs), or build "
            "merlin_models again in this environment."
        )


@functools.cache
def tf_ops() -> ModuleType:
    """The TensorFlow ops, registered on the first call.

    Raises:
        ImportError: if the installed TensorFlow is not of the minor version that the ops were built for.
    """
    import tensorflow as tf

    check_tensorflow_version(tf.__version__)
    return tf.load_op_library(str(_FOLDER / "libmerlin_tf_ops.so"))


@functools.cache
def has_cuda() -> bool:
    """Whether the build has CUDA kernels."""
    return module().with_cuda


def raise_device_errors() -> None:
    """Raises ValueError if a CUDA kernel met an id out of range, or bad row_splits, since the last look.

    CUDA kernels skip what is wrong and note it; the next call of an op on the device raises the note by itself. Call
    this after the last step, having waited for the device, to see a note of that step.

    Raises:
        ValueError: with the note; nothing without CUDA kernels.

    Example:
        >>> from merlin_models.ops import raise_device_errors
        >>> raise_device_errors()
    """
    message = module().take_device_error() if has_cuda() else ""
    if message:
        raise ValueError(message)


def build_info() -> dict[str, Any]:
    """What was built and what of it this machine can use, as a dictionary; see :func:`show_build`."""
    native = module()
    installed = None
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            installed = f"{importlib.metadata.version(name)} ({name})"
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    info = {
        "merlin_models": _build_info.VERSION,
        "compiler": _build_info.CXX_COMPILER,
        "built for TensorFlow": _build_info.TENSORFLOW,
        "TensorFlow installed": installed or "none",
        "CPU instruction set": native.cpu_instruction_set(),
        "CUDA kernels": "no",
    }
    if native.with_cuda:
        version = native.cuda_version()
        info["CUDA kernels"] = f"yes, CUDA {version // 1000}.{version % 1000 // 10}"
        info["GPU architectures"] = native.cuda_architectures()
        info["GPU"] = native.cuda_device_name() if native.cuda_device_present() else "none found"
    return info


def show_build() -> None:
    """Prints what was built: versions, CUDA, GPU architectures, and the instruction set that CPU kernels use here.

    Example:
        >>> import merlin_models
        >>> merlin_models.show_build()  # doctest: +SKIP
        merlin_models         0.1.0
        CPU instruction set   avx512
        CUDA kernels          no
    """
    info = build_info()
    width = max(map(len, info)) + 2
    for name, value in info.items():
        print(f"{name:<{width}}{value}")
