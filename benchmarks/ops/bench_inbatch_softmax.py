"""inbatch_softmax: the cases of its speed bars, the bytes that each must move, and who is measured on them."""

from __future__ import annotations

from benchmarks.ops.inbatch_softmax_problem import ITEM_BYTES, Case, InbatchSoftmaxProblem, check

__all__ = ["CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "inbatch_softmax"
OPTIMIZERS: tuple[str, ...] = ()


def _case(batch: int, dim: int, dtype: str, *groups: str, plain: bool = False) -> Case:
    short = {"float32": "fp32", "bfloat16": "bf16"}[dtype]
    return Case(f"{'plain_' if plain else ''}b{batch}_d{dim}_{short}", batch, dim, dtype, plain, groups)


_BATCHES = (8_192, 16_384, 32_768, 65_536)
_ALL = [
    _case(8_192, 128, "float32", "cuda", "bars", "cpu"),
    *(_case(batch, 128, "float32", "cuda", "bars") for batch in _BATCHES[1:]),
    *(_case(batch, 128, "bfloat16", "cuda", "bars") for batch in _BATCHES),
    *(_case(batch, dim, dtype, "cuda") for dtype in ITEM_BYTES for dim in (64, 256) for batch in _BATCHES),
    *(_case(batch, 128, dtype, "plain", plain=True) for dtype in ITEM_BYTES for batch in _BATCHES[2:]),
    _case(262_144, 128, "bfloat16", "large"),
    _case(64, 16, "float32", "smoke"),
    _case(64, 16, "bfloat16", "smoke"),
    _case(64, 16, "float32", "smoke", plain=True),
]
CASES = {case.name: case for case in _ALL}
DEFAULT_CASES = {"cpu": ("cpu",), "cuda": ("bars", "large")}

PROVIDERS = {
    "merlin_native": "benchmarks.ops.inbatch_softmax_native:MerlinNative",
    "merlin_native_graph": "benchmarks.ops.inbatch_softmax_native:MerlinNativeGraph",
    "merlin_native_float32": "benchmarks.ops.inbatch_softmax_native:MerlinNativeFloat32",
    "torch": "benchmarks.ops.inbatch_softmax_torch:TorchMatmul",
    "torch_compile": "benchmarks.ops.inbatch_softmax_torch:TorchCompile",
    "torch_flex_attention": "benchmarks.ops.inbatch_softmax_torch:FlexAttention",
    "cut_cross_entropy": "benchmarks.ops.inbatch_softmax_torch:CutCrossEntropy",
    "liger": "benchmarks.ops.inbatch_softmax_torch:Liger",
    "merlin_tf": "benchmarks.ops.inbatch_softmax_tensorflow:MerlinTensorFlow",
    "tf": "benchmarks.ops.inbatch_softmax_tensorflow:TensorFlowMatmul",
    "tf_xla": "benchmarks.ops.inbatch_softmax_tensorflow:TensorFlowXla",
}


def traffic(problem: InbatchSoftmaxProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """Bytes that a call must move, twice: any algorithm reads each vector and writes each gradient once.

    Few, since the op is limited by its products: 2 B N D operations forward and 6 or 8 B N D with the gradient, whether
    scores are kept or computed again. ``config`` has them as ``flops_of_a_product``, 2 B N D.
    """
    vectors = 2 * problem.batch * problem.dim * ITEM_BYTES[problem.dtype]
    rows = problem.batch * (4 + (0 if problem.plain else 8 + 4))
    total = vectors + rows if mode == "forward" else 3 * vectors + 2 * rows
    return total, total
