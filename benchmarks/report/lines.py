"""Cases that tables show in their lines, by the names that readers see, and the speeds that were set as goals."""

from __future__ import annotations

from benchmarks.report.contests import Contest, Key, devices

Contests = dict[Key, Contest]
Line = tuple[str, str, str, str, str]  # how a reader calls it; op, case, mode, optimizer

STEP, FULL, FORWARD = "forward_backward_update", "forward_backward", "forward"
BAG, DOT, SOFTMAX = "embedding_bag", "dot_interaction", "inbatch_softmax"

GPU_LINES: tuple[Line, ...] = (
    ("26 tables, uniform ids: lookup", BAG, "mlperf26_400k_uniform", FORWARD, ""),
    ("26 tables, Zipf's ids: lookup", BAG, "mlperf26_400k_zipf1.2", FORWARD, ""),
    ("26 tables, uniform ids, float16: lookup", BAG, "mlperf26_400k_uniform_fp16", FORWARD, ""),
    ("26 tables, dims 16 to 128: lookup", BAG, "mlperf26_mixed_dims", FORWARD, ""),
    ("26 tables, uniform ids: Adagrad step", BAG, "mlperf26_400k_uniform", STEP, "adagrad"),
    ("26 tables, Zipf's ids: Adagrad step", BAG, "mlperf26_400k_zipf1.2", STEP, "adagrad"),
    ("26 tables, uniform ids: Adam step", BAG, "mlperf26_400k_uniform", STEP, "adam"),
    ("1 table of 10,000,000 rows: Adam step", BAG, "t1_10m_d128_hot1", STEP, "adam"),
    ("27 vectors of 128, float32: interaction and gradient", DOT, "b65536_f27_d128_fp32", FULL, ""),
    ("27 vectors of 128, bfloat16: interaction and gradient", DOT, "b65536_f27_d128_bf16", FULL, ""),
    ("softmax over a batch of 32,768, float32, and gradient", SOFTMAX, "b32768_d128_fp32", FULL, ""),
    ("softmax over a batch of 32,768, bfloat16, and gradient", SOFTMAX, "b32768_d128_bf16", FULL, ""),
    ("softmax over a batch of 65,536, bfloat16, and gradient", SOFTMAX, "b65536_d128_bf16", FULL, ""),
    ("DLRM, batch 65,536, float32: step", "dlrm", "dlrm_cap1m_b65536_onehot_fp32", STEP, "adagrad"),
    ("DLRM, batch 65,536, bfloat16: step", "dlrm", "dlrm_cap1m_b65536_onehot_bf16", STEP, "adagrad"),
    ("two towers, batch 16,384: step", "two_tower", "two_tower_ml1m_b16384", STEP, "adam"),
)
CPU_LINES: tuple[Line, ...] = (
    ("4 tables of 1,000,000 rows: lookup", BAG, "cpu_t4_1m", FORWARD, ""),
    ("4 tables of 1,000,000 rows, Zipf's ids: lookup", BAG, "cpu_t4_1m_zipf1.05", FORWARD, ""),
    ("4 tables of 1,000,000 rows, float16: lookup", BAG, "cpu_t4_1m_fp16", FORWARD, ""),
    ("4 tables of 1,000,000 rows, bfloat16: lookup", BAG, "cpu_t4_1m_bf16", FORWARD, ""),
    ("1 table of 10,000,000 rows: lookup", BAG, "cpu_rows_10m", FORWARD, ""),
    ("MovieLens' users, movies and genres: lookup", BAG, "movielens", FORWARD, ""),
    ("4 tables of 1,000,000 rows: Adagrad step", BAG, "cpu_t4_1m", STEP, "adagrad"),
    ("4 tables of 1,000,000 rows: row-wise Adagrad step", BAG, "cpu_t4_1m", STEP, "rowwise_adagrad"),
    ("1 table of 100,000 rows: Adagrad step", BAG, "cpu_rows_100k", STEP, "adagrad"),
    ("1 table of 1,000,000 rows: Adagrad step", BAG, "cpu_rows_1m", STEP, "adagrad"),
    ("1 table of 1,000,000 rows: Adam step", BAG, "cpu_rows_1m", STEP, "adam"),
    ("27 vectors of 128, batch 4,096: interaction and gradient", DOT, "b4096_f27_d128_fp32", FULL, ""),
    ("softmax over a batch of 8,192, and gradient", SOFTMAX, "b8192_d128_fp32", FULL, ""),
    ("Parquet to tensors, 5,000,000 rows, batch 4,096", "loader", "loader_5m_b4096", FORWARD, ""),
    ("Parquet to tensors, 5,000,000 rows, batch 65,536", "loader", "loader_5m_b65536", FORWARD, ""),
    ("DLRM, batch 512: step", "dlrm", "dlrm_cap400k_b512_onehot_fp32", STEP, "adagrad"),
    ("DLRM, batch 2,048: step", "dlrm", "dlrm_cap400k_b2048_onehot_fp32", STEP, "adagrad"),
    ("two towers, batch 4,096: step", "two_tower", "two_tower_ml1m_b4096", STEP, "adam"),
)
LINES = {"gpu": GPU_LINES, "cpu": CPU_LINES}

# Of docs/performance.md: the speed that was set as a goal, in ms or in words.
BAR = "bar of an H100"
BARS = {
    ("mlperf26_400k_uniform", FORWARD, ""): "0.68",
    ("mlperf26_400k_zipf1.2", FORWARD, ""): "0.28",
    ("mlperf26_400k_uniform_fp16", FORWARD, ""): "0.38",
    ("mlperf26_mixed_dims", FORWARD, ""): "1.4 x FBGEMM",
    ("t1_1m_d64_hot20", FORWARD, ""): "0.135",
    ("t32_100k_d128_hot20", FORWARD, ""): "0.08",
    ("mlperf26_400k_uniform", STEP, "sgd"): "1.8",
    ("mlperf26_400k_uniform", STEP, "rowwise_adagrad"): "1.85",
    ("mlperf26_400k_uniform", STEP, "adagrad"): "2.4",
    ("mlperf26_400k_uniform", STEP, "adam"): "3.2",
    ("mlperf26_400k_zipf1.2", STEP, "adagrad"): "0.9",
    ("mlperf26_mixed_dims", STEP, "adagrad"): "1.4 x FBGEMM",
    ("t1_10m_d128_hot1", STEP, "rowwise_adagrad"): "0.25",
    ("b65536_f27_d128_fp32", FORWARD, ""): "0.42",
    ("b65536_f27_d128_fp32", FULL, ""): "1.25",
    ("b65536_f27_d128_fp16", FORWARD, ""): "0.21",
    ("b65536_f27_d128_fp16", FULL, ""): "0.62",
    ("b65536_f27_d128_bf16", FORWARD, ""): "0.21",
    ("b65536_f27_d128_bf16", FULL, ""): "0.62",
    ("b32768_d128_fp32", FULL, ""): "5",
    ("b32768_d128_bf16", FULL, ""): "3",
    ("b65536_d128_fp32", FULL, ""): "20",
    ("b65536_d128_bf16", FULL, ""): "12",
}
EMBEDDING_LINES: tuple[Line, ...] = (
    ("26 x 400k, D128, B16384, MLPerf hots, uniform", BAG, "mlperf26_400k_uniform", FORWARD, ""),
    ("same, zipf 1.2", BAG, "mlperf26_400k_zipf1.2", FORWARD, ""),
    ("same, uniform, float16", BAG, "mlperf26_400k_uniform_fp16", FORWARD, ""),
    ("26 tables, dims 16 to 128 mixed", BAG, "mlperf26_mixed_dims", FORWARD, ""),
    ("1 x 1M, D64, 20-hot, B65536", BAG, "t1_1m_d64_hot20", FORWARD, ""),
    ("32 x 100k, D128, 20-hot, B512", BAG, "t32_100k_d128_hot20", FORWARD, ""),
    ("26 tables uniform, SGD step", BAG, "mlperf26_400k_uniform", STEP, "sgd"),
    ("row-wise Adagrad", BAG, "mlperf26_400k_uniform", STEP, "rowwise_adagrad"),
    ("Adagrad", BAG, "mlperf26_400k_uniform", STEP, "adagrad"),
    ("Adam", BAG, "mlperf26_400k_uniform", STEP, "adam"),
    ("26 tables zipf 1.2, Adagrad", BAG, "mlperf26_400k_zipf1.2", STEP, "adagrad"),
    ("26 tables float16, Adagrad", BAG, "mlperf26_400k_uniform_fp16", STEP, "adagrad"),
    ("mixed dims, Adagrad", BAG, "mlperf26_mixed_dims", STEP, "adagrad"),
    ("1 x 10M, D128, one-hot, B65536, row-wise Adagrad", BAG, "t1_10m_d128_hot1", STEP, "rowwise_adagrad"),
    ("1 x 1M, D128, one-hot, B65536, lazy Adam", BAG, "t1_1m_d128_hot1", STEP, "adam"),
    ("1 x 10M, D128, one-hot, B65536, lazy Adam", BAG, "t1_10m_d128_hot1", STEP, "adam"),
)


def select(contests: Contests, device: str, lines: tuple[Line, ...]) -> list[tuple[str, Contest]]:
    """Of a device: those lines that have rows of ours."""
    found = [(label, contests.get((op, case, mode, rule, device))) for label, op, case, mode, rule in lines]
    return [(label, contest) for label, contest in found if contest is not None and contest.ours is not None]


def unmeasured(contests: Contests) -> dict[str, list[str]]:
    """README's lines without rows of ours, by device; a device without any such line is missing."""
    found = {}
    for kind, device in devices(contests.values()).items():
        there = {label for label, _ in select(contests, device, LINES[kind])}
        if missing := [label for label, *_ in LINES[kind] if label not in there]:
            found[device] = missing
    return found
