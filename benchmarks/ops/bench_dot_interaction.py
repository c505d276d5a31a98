"""dot_interaction: the cases of its speed bars, the bytes that each must move, and who is measured on them."""

from __future__ import annotations

from benchmarks.ops.dot_interaction_problem import ITEM_BYTES, Case, DotInteractionProblem, check

__all__ = ["CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "dot_interaction"
OPTIMIZERS: tuple[str, ...] = ()


def _case(batch: int, features: int, dim: int, dtype: str, group: str, rows: int = 0, hotness: int = 1) -> Case:
    short = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}[dtype]
    hot = f"_hot{hotness}" if hotness > 1 else ""
    name = f"{'lookup_' if rows else ''}b{batch}_f{features}_d{dim}{hot}_{short}"
    return Case(name, batch, features, dim, dtype, rows, (group,), hotness=hotness)


def _scaled(what: str, batch: int, features: int, dim: int, value: int, group: str = "") -> Case:
    name = f"{group}_{what}_{value}" if group else f"scale_{what}_{value}"
    return Case(name, batch, features, dim, groups=(group or f"scale_{what}",))


_ALL = [
    *(_case(65_536, 27, 128, dtype, "cuda") for dtype in ITEM_BYTES),
    *(_case(batch, 27, 128, dtype, "cuda") for batch in (8_192, 2_048) for dtype in ("float32", "bfloat16")),
    *(_case(65_536, 27, 64, dtype, "cuda") for dtype in ("float32", "bfloat16")),
    _case(65_536, 27, 16, "float32", "cuda"),
    _case(65_536, 27, 32, "bfloat16", "cuda"),
    *(_case(65_536, 40, 32, dtype, "cuda") for dtype in ("float32", "bfloat16")),
    *(_case(65_536, features, 32, dtype, "many") for features in (64, 100) for dtype in ("float32", "bfloat16")),
    *(
        _case(65_536, 27, 128, dtype, "lookup", 400_000, hotness)
        for hotness in (1, 4)
        for dtype in ("float32", "bfloat16")
    ),
    *(_case(4_096, 27, 128, dtype, "cpu") for dtype in ("float32", "bfloat16")),
    *(_case(4_096, 27, 128, dtype, "lookup_cpu", 100_000) for dtype in ("float32", "bfloat16")),
    *(_scaled("batch", batch, 27, 64, batch) for batch in (512, 2_048, 8_192, 32_768)),
    *(_scaled("dim", 2_048, 27, dim, dim) for dim in (16, 64, 256)),
    *(_scaled("batch", batch, 5, 16, batch, "smoke_scale") for batch in (16, 32)),
    _case(64, 5, 16, "float32", "smoke"),
    _case(64, 5, 16, "bfloat16", "smoke"),
    Case("lookup_b64_f5_d16_fp32", 64, 5, 16, "float32", 50, ("smoke", "smoke_lookup")),
    Case("lookup_b64_f5_d16_hot3_fp32", 64, 5, 16, "float32", 50, ("smoke_lookup",), hotness=3),
]
CASES = {case.name: case for case in _ALL}
DEFAULT_CASES = {"cpu": ("cpu",), "cuda": ("cuda",)}

PROVIDERS = {
    "merlin_native": "benchmarks.ops.dot_interaction_torch:MerlinNative",
    "merlin_native_graph": "benchmarks.ops.dot_interaction_torch:MerlinNativeGraph",
    "merlin_native_two_ops": "benchmarks.ops.dot_interaction_torch:MerlinNativeTwoOps",
    "merlin_native_two_ops_graph": "benchmarks.ops.dot_interaction_torch:MerlinNativeTwoOpsGraph",
    "merlin_native_float32": "benchmarks.ops.dot_interaction_torch:MerlinNativeFloat32",
    "torch": "benchmarks.ops.dot_interaction_torch:TorchBmm",
    "torch_compile": "benchmarks.ops.dot_interaction_torch:TorchCompile",
    "merlin_tf": "benchmarks.ops.dot_interaction_tensorflow:MerlinTensorFlow",
    "merlin_tf_two_ops": "benchmarks.ops.dot_interaction_tensorflow:MerlinTwoOps",
    "merlin_tf_loop": "benchmarks.ops.dot_interaction_tensorflow:MerlinLoop",
    "merlin_tf_two_ops_loop": "benchmarks.ops.dot_interaction_tensorflow:MerlinTwoOpsLoop",
    "tf_eager": "benchmarks.ops.dot_interaction_tensorflow:TensorFlowEager",
    "tf": "benchmarks.ops.dot_interaction_tensorflow:TensorFlowMatmul",
    "tf_xla": "benchmarks.ops.dot_interaction_tensorflow:TensorFlowXla",
    "keras_rs": "benchmarks.ops.dot_interaction_tensorflow:KerasRs",
}


def traffic(problem: DotInteractionProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """Bytes that a call must move, twice: any algorithm reads each vector and writes each product once.

    With B samples, F features, D columns, P pairs, s bytes an element: forward B (F D + P) s; the gradient reads the
    vectors and the products' gradients and writes the vectors' gradients, B (2 F D + P) s more. A vector that is looked
    up is read as its rows, and 8 bytes an id come to that, each time; the gradient of the tables themselves is not part
    of it.
    """
    size = ITEM_BYTES[problem.dtype]
    vector, pairs = problem.dim * size, problem.pairs * size
    vectors = read = problem.features * vector
    if problem.rows:
        read = vector + (problem.features - 1) * problem.case.hotness * (vector + 8)
    forward = problem.batch * (read + pairs)
    total = forward if mode == "forward" else forward + problem.batch * (read + vectors + pairs)
    return total, total
