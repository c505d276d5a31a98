"""FBGEMM's table-batched embeddings: all tables in one call, the optimizer's update inside the backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.harness import Provider
from benchmarks.ops.embedding_bag_problem import ADAGRAD_START, BETA1, BETA2, EPSILON, LEARNING_RATE
from benchmarks.ops.peers_torch import fill, optimizer_state_factor, to_numpy


class Fbgemm(Provider):
    """Its first kernels. Inputs are laid out as it wants them outside of the timing."""

    name = "fbgemm"
    runtime = "torch"
    requires = ("torch", "fbgemm_gpu")
    experimental = False

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if mode == "full":
            return "its backward always updates the tables"
        if case.dtype == "bfloat16" and device == "cpu":
            return "its CPU forward has no bfloat16 output"
        if case.dtype == "bfloat16":  # its constructor takes them with another cache_precision, its kernels do not
            return "its kernels read tables of float32 and float16; bfloat16 is for outputs alone"
        if device == "cpu" and optimizer == "adam":
            return "its Adam does not run on a CPU"
        if optimizer == "adam" and case.dtype != "float32":
            return "its Adam wants float32 tables"
        return ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return problem.table_bytes * (1 + optimizer_state_factor(optimizer))

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import torch
        from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
            BoundsCheckMode,
            EmbeddingLocation,
            PoolingMode,
        )
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        self._torch, self._device, self._mode = torch, device, mode
        torch.manual_seed(2)
        if device == "cpu":
            torch.set_num_threads(environment.num_threads())
            place = (EmbeddingLocation.HOST, ComputeDevice.CPU)
        else:
            place = (EmbeddingLocation.DEVICE, ComputeDevice.CUDA)
        precision = {"float32": SparseType.FP32, "float16": SparseType.FP16}
        kind = {
            "": EmbOptimType.EXACT_SGD,
            "sgd": EmbOptimType.EXACT_SGD,
            "adagrad": EmbOptimType.EXACT_ADAGRAD,
            "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            "adam": EmbOptimType.ADAM,
        }[optimizer]
        self._module = SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, dim, *place) for rows, dim in zip(problem.rows, problem.dims, strict=True)],
            optimizer=kind,
            weights_precision=precision[problem.dtype],
            output_dtype=precision[problem.dtype],
            pooling_mode={"sum": PoolingMode.SUM, "mean": PoolingMode.MEAN}[problem.combiner],
            bounds_check_mode=BoundsCheckMode.NONE,
            stochastic_rounding=False,
            use_experimental_tbe=self.experimental,
            learning_rate=LEARNING_RATE,
            eps=EPSILON,
            beta1=BETA1,
            beta2=BETA2,
            device=None if device == "cpu" else torch.device("cuda", torch.cuda.current_device()),
        )
        self._tables = self._module.split_embedding_weights()
        for t, table in enumerate(self._tables):
            fill(torch, table, problem.table_block(t))
        if optimizer.endswith("adagrad"):
            for states in self._module.split_optimizer_states():
                for state in states:
                    state.fill_(ADAGRAD_START)
        self._sets = []
        for bags_of_set in problem.sets:
            starts = np.cumsum([0] + [len(bags.values) for bags in bags_of_set])
            offsets = [bags.row_splits[:-1] + start for bags, start in zip(bags_of_set, starts, strict=False)]
            arrays = (
                np.concatenate([bags.values for bags in bags_of_set]),
                np.concatenate([*offsets, starts[-1:]]),
            )
            self._sets.append(tuple(torch.from_numpy(array).to(device) for array in arrays))
        if mode == "update":
            dtype = getattr(torch, problem.dtype)
            self._grads = [torch.from_numpy(grad).to(device, dtype) for grad in problem.grads]
        self._dims = problem.dims

    def forward(self, i: int) -> Any:
        with self._torch.no_grad():
            return self._module(*self._sets[i])

    def update(self, i: int, g: int) -> None:
        self._module(*self._sets[i]).backward(self._grads[g])

    def outputs(self, output: Any) -> list[np.ndarray]:
        return np.split(to_numpy(output), np.cumsum(self._dims)[:-1], axis=1)

    def read_rows(self, t: int, ids: np.ndarray) -> np.ndarray:
        return to_numpy(self._tables[t][self._torch.from_numpy(ids).to(self._tables[t].device)])


class FbgemmV2(Fbgemm):
    """Its second kernels, ``use_experimental_tbe=True``."""

    name = "fbgemm_v2"
    experimental = True

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device == "cpu":
            return "the second kernels are for GPUs"
        return super().unsupported(case, device, mode, optimizer)
