"""inbatch_softmax: the cases of its speed bars, the bytes that each must move, and who is measured on them."""

from __future__ import annotations

from benchmarks.ops.inbatch_softmax_problem import ITEM_BYTES, Case, InbatchSoftmaxProblem, check

__all__ = ["CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "inbatch_softmax"
OPTIMIZERS: tuple[str, ...] = ()


def _case(batch: int, dim: int, dtype: str, *groups: str, plain: bool = False) -> Case:
    short = {"float32": "fp32", "bfloat16": "bf16"}[dtype]
    return Case(f"{'plain_' if plain else ''}b{batch}_d{dim}_{short}", batch, dim, dtype, plain, groups=groups)


def _scaled(what: str, batch: int, dim: int, value: int, candidates: int = 0, group: str = "") -> Case:
    name = f"{group}_{what}_{value}" if group else f"scale_{what}_{value}"
    return Case(name, batch, dim, candidates=candidates, groups=(group or f"scale_{what}",))


_BATCHES = (8_192, 16_384, 32_768, 65_536)
_ALL = [
    _case(8_192, 128, "float32", "cuda", "bars", "cpu"),
    _case(4_096, 128, "bfloat16", "cpu"),
    *(_case(batch, 128, "float32", "cuda", "bars") for batch in _BATCHES[1:]),
    *(_case(batch, 128, "bfloat16", "cuda", "bars") for batch in _BATCHES),
    *(_case(batch, dim, dtype, "cuda") for dtype in ITEM_BYTES for dim in (64, 256) for batch in _BATCHES),
    *(_case(batch, 128, dtype, "plain", plain=True) for dtype in ITEM_BYTES for batch in _BATCHES[2:]),
    _case(262_144, 128, "bfloat16", "large"),
    *(_scaled("batch", batch, 64, batch) for batch in (512, 2_048, 8_192)),
    *(_scaled("dim", 2_048, dim, dim) for dim in (32, 64, 128, 256)),
    *(_scaled("catalogue", 1_024, 64, count, count) for count in (1_024, 4_096, 16_384, 65_536)),
    _scaled("batch", 32, 16, 32, group="smoke_scale"),
    _scaled("catalogue", 32, 16, 128, 128, group="smoke_scale"),
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
    "tf_eager": "benchmarks.ops.inbatch_softmax_tensorflow:TensorFlowEager",
    "tf": "benchmarks.ops.inbatch_softmax_tensorflow:TensorFlowMatmul",
    "tf_xla": "benchmarks.ops.inbatch_softmax_tensorflow:TensorFlowXla",
}


def traffic(problem: InbatchSoftmaxProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """Bytes that a call must move, twice: any algorithm reads each vector and writes each gradient once.

    Few, since the op is limited by its products: 2 B N D operations forward and 6 or 8 B N D with the gradient, whether
    scores are kept or computed again. ``config`` has them as ``flops_of_a_product``, 2 B N D.
    """
    vectors = (problem.batch + problem.candidates_count) * problem.dim * ITEM_BYTES[problem.dtype]
    rows = problem.batch * 4 + (0 if problem.plain else problem.candidates_count * (8 + 4))
    total = vectors + rows if mode == "forward" else 3 * vectors + 2 * rows
    return total, total
