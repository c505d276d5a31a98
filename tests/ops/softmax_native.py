"""Calls of inbatch_softmax through merlin_models._C, on NumPy arrays or, on a GPU, PyTorch's."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from softmax_data import SoftmaxCase

from merlin_models import _native

native = _native.module()


class Device:
    """Makes arrays on a device and brings them back: NumPy, or PyTorch's for the GPU (CuPy has no bfloat16)."""

    def __init__(self, kind: str):
        self.kind, self.on_gpu = kind, kind != "numpy"
        if self.on_gpu:
            self.torch = pytest.importorskip("torch", reason="PyTorch makes the GPU's arrays")

    def to(self, array):
        if array is None or not self.on_gpu:
            return array
        if array.dtype == ml_dtypes.bfloat16:
            return self.torch.from_numpy(array.view(np.int16).copy()).view(self.torch.bfloat16).cuda()
        return self.torch.from_numpy(np.ascontiguousarray(array)).cuda()

    def back(self, array):
        return array.astype(np.float64) if not self.on_gpu else array.double().cpu().numpy()

    def poisoned(self, shape, dtype="float32"):
        if dtype == "int64":
            return self.to(np.full(shape, -77, np.int64))
        return self.to(np.full(shape, np.nan, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype))

    def workspaces(self, *shape, **options) -> tuple[dict, dict]:
        """The forward and backward pass' workspace arguments; only a GPU, which alone can say how much, needs any."""
        if not self.on_gpu:
            return {}, {}
        sizes = native.inbatch_softmax_workspaces(*shape, **options)
        return tuple({"workspace": self.to(np.full(size, 0xFF, np.uint8))} for size in sizes)


def inputs_of(case: SoftmaxCase, device: Device) -> dict:
    vectors = {name: device.to(getattr(case, name)) for name in ("queries", "positives", "candidates")}
    others = ("positive_ids", "candidate_ids", "positive_log_q", "candidate_log_q")
    scale = np.array([1.0 / case.temperature], np.float32)
    return {**vectors, "scale": device.to(scale), **{name: device.to(getattr(case, name)) for name in others}}


def run(
    case: SoftmaxCase,
    device: Device,
    *,
    tf32: bool = False,
    num_threads: int = 0,
    sums: float | None = 1.0,
    query_weights: np.ndarray | None = None,
) -> tuple[dict, dict]:
    """Results and gradients by the reference's names, as float64.

    Args:
        sums: on a CPU what the forward pass' sums of candidates are multiplied with before the backward pass gets them;
            None for a call without them.
    """
    inputs = inputs_of(case, device)
    batch, dim = case.queries.shape
    count = len(case.candidates)
    forward_space, grad_space = device.workspaces(batch, count, dim, case.dtype, tf32=tf32)
    options = {"tf32": tf32, "num_threads": num_threads, "query_weights": device.to(query_weights)}
    summed = {}
    if not device.on_gpu and sums is not None and native.inbatch_softmax_sums_candidates(batch, count):
        summed["candidate_sums"] = device.poisoned((count, dim))
        if case.candidate_log_q is not None:
            summed["candidate_weights"] = device.poisoned(count)

    loss, log_sum, positive_score = (device.poisoned(batch) for _ in range(3))
    rank, mean = device.poisoned(batch, "int64"), device.poisoned((batch, dim))
    native.inbatch_softmax_forward(
        **inputs,
        loss=loss,
        log_sum=log_sum,
        positive_score=positive_score,
        rank=rank,
        mean=mean,
        **summed,
        **forward_space,
        **options,
    )
    for array in summed.values():
        assert np.isfinite(array).all() or not np.isfinite(loss).all()
        array *= sums
    grads = {
        "queries_grad": device.poisoned((batch, dim), case.dtype),
        "positives_grad": device.poisoned((batch, dim), case.dtype),
        "candidates_grad": device.poisoned((count, dim), case.dtype),
        "scale_grad": device.poisoned(1),
    }
    if case.positive_log_q is not None:
        grads |= {"positive_log_q_grad": device.poisoned(batch), "candidate_log_q_grad": device.poisoned(count)}
    native.inbatch_softmax_grad(
        **inputs,
        log_sum=log_sum,
        positive_score=positive_score,
        mean=mean,
        log_sum_grad=device.to(case.grads[0] + case.grads[1]),
        positive_score_grad=device.to(case.grads[2] - case.grads[0]),
        **grads,
        **summed,
        **grad_space,
        **options,
    )
    outputs = {"loss": loss, "log_sum_exp": log_sum, "positive_score": positive_score, "rank": rank}
    named = {name.removesuffix("_grad"): device.back(grad) for name, grad in grads.items()}
    named["temperature"] = -named.pop("scale")[0] / case.temperature**2
    return {name: device.back(output) for name, output in outputs.items()}, named
