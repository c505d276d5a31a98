"""embedding_bag: the cases of its speed bars, the bytes that each must move, and who is measured on them."""

from __future__ import annotations

from benchmarks.ops.embedding_bag_problem import ITEM_BYTES, OPTIMIZERS, Case, EmbeddingBagProblem, check
from merlin_models.datasets import criteo

__all__ = ["CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "embedding_bag"


def _mlperf(name: str, dims: tuple[int, ...] = (128,), **options) -> Case:
    options = {"rows": (400_000,) * 26, "batch": 16_384, "groups": ("cuda",), **options}
    return Case(name, dims=(dims * 26)[:26], hots=criteo.MLPERF_HOTS, **options)


def _same(name: str, tables: int, rows: int, dim: int, batch: int, hot: int, group: str, **options) -> Case:
    return Case(name, (rows,) * tables, (dim,) * tables, (hot,) * tables, batch, groups=(group,), **options)


_ALL = [
    _mlperf("mlperf26_400k_uniform"),
    _mlperf("mlperf26_400k_zipf1.2", ids="zipf1.2"),
    _mlperf("mlperf26_400k_uniform_fp16", dtype="float16"),
    _mlperf("mlperf26_400k_zipf1.2_fp16", ids="zipf1.2", dtype="float16"),
    _mlperf("mlperf26_400k_uniform_bf16", dtype="bfloat16"),
    _mlperf("mlperf26_mixed_dims", dims=(16, 32, 64, 128)),
    _mlperf("mlperf26_cap4m", rows=criteo.mlperf_cardinalities(max_rows=4_000_000), batch=65_536),
    _same("t1_1m_d64_hot20", 1, 1_000_000, 64, 65_536, 20, "cuda"),
    _same("t32_100k_d128_hot20", 32, 100_000, 128, 512, 20, "cuda"),
    _same("t1_1m_d128_hot1", 1, 1_000_000, 128, 65_536, 1, "cuda"),
    _same("t1_10m_d128_hot1", 1, 10_000_000, 128, 65_536, 1, "cuda"),
    _same("t1_40m_d128_hot1", 1, 40_000_000, 128, 65_536, 1, "cuda"),
    _same("cpu_t4_1m", 4, 1_000_000, 128, 2_048, 20, "cpu"),
    _same("cpu_t4_1m_zipf1.05", 4, 1_000_000, 128, 2_048, 20, "cpu", ids="zipf1.05"),
    _same("cpu_t4_1m_fp16", 4, 1_000_000, 128, 2_048, 20, "cpu", dtype="float16"),
    _same("cpu_t4_1m_bf16", 4, 1_000_000, 128, 2_048, 20, "cpu", dtype="bfloat16"),
    _same("cpu_rows_100k", 1, 100_000, 128, 2_048, 20, "cpu"),
    _same("cpu_rows_1m", 1, 1_000_000, 128, 2_048, 20, "cpu"),
    _same("cpu_rows_10m", 1, 10_000_000, 128, 2_048, 20, "cpu"),
    Case("movielens", (), (64, 64, 64), (), 16_384, ids="movielens", groups=("cpu", "cuda")),
    *(_same(f"scale_batch_{b}", 1, 100_000, 64, b, 10, "scale_batch") for b in (512, 2_048, 8_192, 32_768)),
    *(_same(f"scale_rows_{r}", 1, r, 32, 2_048, 1, "scale_rows") for r in (10_000, 100_000, 1_000_000, 4_000_000)),
    *(_same(f"scale_hotness_{h}", 1, 100_000, 64, 2_048, h, "scale_hotness") for h in (1, 4, 16, 64)),
    *(_same(f"scale_dim_{d}", 1, 100_000, d, 2_048, 10, "scale_dim") for d in (8, 32, 128, 512)),
    *(_same(f"smoke_scale_{b}", 1, 1_000, 16, b, 4, "smoke_scale") for b in (32, 128)),
    Case("smoke", (1_000, 50, 7), (16, 16, 16), (5, 1, 3), 64, ids="zipf1.15", groups=("smoke",)),
    Case("smoke_ragged", (1_000, 50), (16, 16), (5, 1), 64, ragged=True, combiner="mean", groups=("smoke",)),
    Case("smoke_fp16", (1_000, 50), (16, 32), (5, 1), 64, dtype="float16", groups=("smoke",)),
    Case("smoke_bf16", (1_000, 50), (16, 32), (5, 1), 64, dtype="bfloat16", groups=("smoke",)),
]
CASES = {case.name: case for case in _ALL}
DEFAULT_CASES = {
    "cpu": ("cpu_t4_1m", "cpu_rows_100k", "cpu_rows_1m", "cpu_rows_10m", "movielens"),
    "cuda": ("cuda",),
}

PROVIDERS = {
    "gather_floor": "benchmarks.gather_floor:GatherFloor",
    "merlin_native": "benchmarks.ops.merlin_native:MerlinNative",
    "merlin_native_graph": "benchmarks.ops.merlin_native:MerlinNativeGraph",
    "merlin_native_dense": "benchmarks.ops.merlin_native:MerlinNativeDense",
    "merlin_native_dense_graph": "benchmarks.ops.merlin_native:MerlinNativeDenseGraph",
    "merlin_native_cupy": "benchmarks.ops.merlin_native_cupy:MerlinNativeCupy",
    "merlin_tf": "benchmarks.ops.merlin_tf:MerlinTensorFlow",
    "merlin_tf_dense": "benchmarks.ops.merlin_tf:MerlinTensorFlowDense",
    "merlin_tf_loop": "benchmarks.ops.merlin_tf:MerlinTensorFlowLoop",
    "torch": "benchmarks.ops.peers_torch:TorchEmbeddingBag",
    "torch_graph": "benchmarks.ops.peers_torch:TorchGraph",
    "torch_compile": "benchmarks.ops.peers_torch:TorchCompile",
    "fbgemm": "benchmarks.ops.peers_fbgemm:Fbgemm",
    "fbgemm_v2": "benchmarks.ops.peers_fbgemm:FbgemmV2",
    "tf_lookup": "benchmarks.ops.peers_tensorflow:LookupSparse",
    "tf_lookup_eager": "benchmarks.ops.peers_tensorflow:LookupSparseEager",
    "tf_segment": "benchmarks.ops.peers_tensorflow:GatherSegmentSum",
    "tf_xla": "benchmarks.ops.peers_tensorflow:XlaGatherSum",
    "keras": "benchmarks.ops.peers_keras:KerasEmbedding",
    "keras_rs": "benchmarks.ops.peers_keras:KerasRsEmbedReduce",
}


def traffic(problem: EmbeddingBagProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """Bytes that input set 0 makes a call move: (algorithmic, compulsory).

    With N ids, U touched rows, D columns, s bytes an element of tables, outputs and upstream gradients, B
    bags, all summed over the features:

    * inputs = 8 N + 8 (B + 1);
    * forward: algorithmic N D s + B D s + inputs (each id's row read from memory); compulsory U D s + B D s +
      inputs (each touched row read once);
    * backward ("full") adds: algorithmic N D s (an upstream row read for each id) + 5 * 16 N (a radix sort of
      four-byte rows and positions in four passes and a first one, read and written) + U D s + 8 U; compulsory
      B D s + inputs + U D s + 8 U (gradient rows and their ids written);
    * update: instead of writing gradient rows, table rows are read and written, 2 U D s, with the optimizer's
      float32 state: Adagrad 2 * 4 U D, row-wise Adagrad 2 * 32 U (the smallest access), Adam 4 * 4 U D.
    """
    size = ITEM_BYTES[problem.dtype]
    num_ids = [len(bags.values) for bags in problem.sets[0]]
    unique = problem.unique_rows
    inputs = 8 * sum(num_ids) + 8 * (problem.batch + 1) * len(num_ids)
    gathered = size * sum(n * d for n, d in zip(num_ids, problem.dims, strict=True))
    touched = size * sum(u * d for u, d in zip(unique, problem.dims, strict=True))
    pooled = size * problem.batch * sum(problem.dims)
    algorithmic, compulsory = gathered + pooled + inputs, touched + pooled + inputs
    if mode == "forward":
        return algorithmic, compulsory
    algorithmic += gathered + 5 * 16 * sum(num_ids)
    compulsory += pooled + inputs
    if mode == "full":
        written = touched + 8 * sum(unique)
        return algorithmic + written, compulsory + written
    elements = touched // size
    state = {"sgd": 0, "adagrad": 8 * elements, "rowwise_adagrad": 64 * sum(unique), "adam": 16 * elements}
    changed = 2 * touched + state[optimizer]
    return algorithmic + changed, compulsory + changed
