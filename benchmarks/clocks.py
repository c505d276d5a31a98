"""Clocks: how the time of a call is taken on each kind of device, and how fast the device copies and multiplies.

On a GPU a sample is ``inner`` calls in a row, so that short calls are not drowned by the cost of waiting for
the device: what is timed is the rate at which a training loop could issue them.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.environment import cpu_name, num_threads

_COPY_BYTES_CPU = 512 << 20
_COPY_BYTES_GPU = 1 << 30
_COPIES = 10  # in one call of TensorFlow's
_GEMM_SIZE_CPU = 2048
_GEMM_SIZE_GPU = 8192


class WallClock:
    """A CPU: calls return when their work is done."""

    device = "cpu"

    def name(self) -> str:
        return cpu_name()

    def sample(self, call: Callable[[], Any], inner: int = 1) -> float:
        """Milliseconds a call, over ``inner`` calls."""
        start = time.perf_counter()
        for _ in range(inner):
            call()
        self.wait()
        return (time.perf_counter() - start) * 1e3 / inner

    def wait(self) -> None:
        """Returns when the device has nothing left to do."""

    def copy_gbps(self) -> float:
        """GB/s of a large copy, bytes read plus bytes written, over all cores."""
        threads = num_threads()
        source = np.ones(_COPY_BYTES_CPU // 8)
        target = np.empty_like(source)
        parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
        with ThreadPoolExecutor(threads) as pool:

            def copy() -> None:
                list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))

            copy()
            times = [self.sample(copy) for _ in range(5)]
        return 2 * source.nbytes / statistics.median(times) / 1e6

    def gemm_tflops(self) -> dict[str, float]:
        """TFLOP/s of a large product of square matrices by dtype: on a CPU NumPy's float32, over all cores."""
        a = np.ones((_GEMM_SIZE_CPU, _GEMM_SIZE_CPU), np.float32)
        out = np.empty_like(a)
        times = [self.sample(lambda: np.matmul(a, a, out=out)) for _ in range(4)]
        return {"float32": _tflops(_GEMM_SIZE_CPU, times[1:])}

    def peak_extra_bytes(self, call: Callable[[], Any]) -> int | None:
        """Memory that a call takes at most beyond what was held; None where no allocator tells it."""
        return None


class TorchClock(WallClock):
    """One NVIDIA GPU driven through PyTorch: times are between two events on the current stream."""

    device = "cuda"

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def name(self) -> str:
        return self._torch.cuda.get_device_name()

    def sample(self, call: Callable[[], Any], inner: int = 1) -> float:
        start = self._torch.cuda.Event(enable_timing=True)
        stop = self._torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(inner):
            call()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / inner

    def wait(self) -> None:
        self._torch.cuda.synchronize()

    def copy_gbps(self) -> float:
        source = self._torch.ones(_COPY_BYTES_GPU // 4, device="cuda")
        target = self._torch.empty_like(source)
        times = [self.sample(lambda: target.copy_(source), inner=10) for _ in range(6)]
        return 2 * _COPY_BYTES_GPU / statistics.median(times[1:]) / 1e6

    def gemm_tflops(self) -> dict[str, float]:
        """float32 as the peers multiply: with TF32."""
        torch, rates = self._torch, {}
        before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
        for dtype in ("float32", "bfloat16"):
            a = torch.randn(_GEMM_SIZE_GPU, _GEMM_SIZE_GPU, device="cuda", dtype=getattr(torch, dtype))
            out = torch.empty_like(a)
            times = [self.sample(lambda a=a, out=out: torch.mm(a, a, out=out), inner=10) for _ in range(4)]
            rates[dtype] = _tflops(_GEMM_SIZE_GPU, times[1:])
        torch.backends.cuda.matmul.allow_tf32 = before
        return rates

    def peak_extra_bytes(self, call: Callable[[], Any]) -> int | None:
        self.wait()
        self._torch.cuda.reset_peak_memory_stats()
        before = self._torch.cuda.memory_allocated()
        call()
        self.wait()
        return self._torch.cuda.max_memory_allocated() - before


class TensorFlowClock(WallClock):
    """One NVIDIA GPU driven through TensorFlow: the host's clock, read after the device has finished."""

    device = "cuda"

    def __init__(self) -> None:
        import tensorflow as tf

        self._tf = tf
        if not tf.config.list_physical_devices("GPU"):
            raise RuntimeError("TensorFlow finds no GPU")

    def name(self) -> str:
        details = self._tf.config.experimental.get_device_details(self._tf.config.list_physical_devices("GPU")[0])
        return details.get("device_name", "GPU")

    def wait(self) -> None:
        self._tf.test.experimental.sync_devices()

    def copy_gbps(self) -> float:
        with self._tf.device("GPU:0"):
            source = self._tf.ones([_COPY_BYTES_GPU // 4])
        copies = copies_in_a_row(self._tf, source, _COPIES)
        if (place := copies().backing_device) != source.backing_device:
            raise RuntimeError(f"copies must be made on {source.backing_device}. Received: {place}")
        times = [self.sample(copies, inner=3) / _COPIES for _ in range(6)]
        return 2 * _COPY_BYTES_GPU / statistics.median(times[1:]) / 1e6

    def gemm_tflops(self) -> dict[str, float]:
        """float32 as TensorFlow multiplies by default: with TF32."""
        tf, rates = self._tf, {}
        for dtype in ("float32", "bfloat16"):
            with tf.device("GPU:0"):
                a = tf.cast(tf.random.normal([_GEMM_SIZE_GPU, _GEMM_SIZE_GPU]), dtype)
            multiply = tf.function(tf.matmul).get_concrete_function(a, a)
            times = [self.sample(lambda a=a, multiply=multiply: multiply(a, a), inner=10) for _ in range(4)]
            rates[dtype] = _tflops(_GEMM_SIZE_GPU, times[1:])
        return rates

    def peak_extra_bytes(self, call: Callable[[], Any]) -> int | None:
        memory = self._tf.config.experimental
        self.wait()
        memory.reset_memory_stats("GPU:0")
        before = memory.get_memory_info("GPU:0")["current"]
        kept = call()
        self.wait()
        del kept
        return memory.get_memory_info("GPU:0")["peak"] - before


def copies_in_a_row(tf: Any, source: Any, count: int) -> Callable[[], Any]:
    """A call of a graph function that copies ``source``, then the copy, and so on, and returns the last of ``count`` copies.

    ``DeepCopy`` is stateful, so none is pruned or shared, and takes new memory each time. On a GPU it is one copy by the
    driver from device to device, as PyTorch's ``copy_``; an op that computes is slower (negation by a fifth). Besides the
    source two copies are alive at a time.
    """

    @tf.function(autograph=False)
    def copies(copy: Any) -> Any:
        with tf.device(source.device):
            for _ in range(count):
                copy = tf.raw_ops.DeepCopy(x=copy)
        return copy

    return functools.partial(copies.get_concrete_function(source), source)


def _tflops(size: int, times: list[float]) -> float:
    return 2 * size**3 / statistics.median(times) / 1e9


def make_clock(device: str, runtime: str) -> WallClock:
    """The clock of a device and of what drives it.

    Args:
        device: "cpu" or "cuda".
        runtime: "torch" or "tensorflow"; a CPU has one clock for all.
    """
    if device == "cpu":
        return WallClock()
    return {"torch": TorchClock, "tensorflow": TensorFlowClock}[runtime]()
