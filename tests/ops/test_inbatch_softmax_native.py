"""inbatch_softmax through merlin_models._C, without TensorFlow: NumPy and DLPack arrays, CPU and GPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from softmax_data import ANY_CALL, DTYPES, SIZES, SoftmaxCase, assert_as_expected, random_case
from softmax_native import Device, inputs_of, native, run


@pytest.fixture(params=["numpy", pytest.param("torch", marks=pytest.mark.gpu)])
def device(request) -> Device:
    return Device(request.param)


def check(case: SoftmaxCase, device: Device, tf32: bool = False) -> None:
    assert_as_expected(case, *run(case, device, tf32=tf32), tf32=tf32, on_gpu=device.on_gpu)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes_and_temperatures(rng, device, dtype, sizes):
    check(random_case(rng, *sizes, dtype, log_q=-30.0, in_batch=bool(rng.integers(2))), device)


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_tf32(rng, sizes):
    check(random_case(rng, *sizes, in_batch=bool(rng.integers(2))), Device("torch"), tf32=True)


@pytest.mark.parametrize("ids", ["different", "equal"])
@pytest.mark.parametrize("log_q", [None, -30.0])
def test_ids_and_log_q(rng, device, ids, log_q):
    for in_batch in (False, True):
        check(random_case(rng, 70, 300, 24, 0.1, ids=ids, log_q=log_q, in_batch=in_batch), device)


@given(batch=st.integers(0, 70), more=st.integers(0, 300), **ANY_CALL)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_call(seed, batch, more, dim, temperature, ids, dtype, in_batch):
    rng = np.random.default_rng(seed)
    count = batch + max(more, 1)
    check(random_case(rng, batch, count, dim, temperature, dtype, ids, in_batch=in_batch), Device("numpy"))


def test_only_the_positive_is_left(rng, device):
    case = random_case(rng, 37, 50, 20, 0.05, ids="equal", log_q=None)
    case.grads[1][:] = case.grads[2][:] = 0.0
    outputs, grads = run(case, device)
    for name in ("loss", "rank"):
        assert not outputs[name].any(), name
    assert not grads["candidates"].any()
    for name in ("queries", "positives", "temperature"):
        assert np.abs(grads[name]).max() <= 2e-6 / case.temperature, name


@pytest.mark.parametrize("size", [1e-18, 1e-9, 30.0, 3e3])
def test_tiny_and_huge_logits(rng, device, size):
    case = random_case(rng, 40, 60, 24, 0.01, size=size)
    outputs, grads = run(case, device)
    for name, result in {**outputs, **grads}.items():
        assert np.isfinite(result).all(), name
    expected, _ = case.expected()
    largest = size * size / 0.01 + 12.0
    for name in ("loss", "log_sum_exp", "positive_score"):
        assert np.abs(outputs[name] - expected[name]).max() <= 1e-5 * largest, name


def test_a_small_loss_is_exact(rng, device):
    # The positive is 20 above all others: log_sum_exp and positive_score are the same float32 number.
    case = random_case(rng, 50, 200, 64, 0.05, ids="different", log_q=None, in_batch=False)
    case.positives = case.queries.copy()
    case.temperature = 1.0 / 40.0
    outputs, _ = run(case, device)
    expected, _ = case.expected()
    assert expected["loss"].min() < 1e-6
    np.testing.assert_allclose(outputs["loss"], expected["loss"], rtol=5e-4)


def test_ranks_are_those_of_a_sort(rng, device):
    case = random_case(rng, 60, 500, 32, 1.0, ids="different", log_q=None)
    for name in ("queries", "candidates"):
        setattr(case, name, rng.integers(-3, 4, getattr(case, name).shape).astype(np.float32))  # all scores are exact
    case.positives = case.candidates[:60]
    outputs, _ = run(case, device)
    scores = case.queries @ case.candidates.T
    for i, row in enumerate(scores):
        assert outputs["rank"][i] == np.sort(-row).searchsorted(-row[i])


def test_equal_candidates_tie(rng, device):
    case = random_case(rng, 30, 30, 33, 0.3, ids="different", log_q=None)
    case.candidates = np.repeat(case.candidates[:1], 30, axis=0)
    case.positives = case.candidates
    if device.on_gpu:  # there positives are summed in another order
        case.candidates = case.positives = np.round(4 * case.candidates)
        case.queries = np.round(4 * case.queries)
    outputs, _ = run(case, device)
    assert not outputs["rank"].any()
    np.testing.assert_allclose(outputs["loss"], np.log(30.0), rtol=1e-6)


def test_results_repeat_to_the_bit(rng, device):
    case = random_case(rng, 300, 700, 48, 0.05)
    outputs, grads = run(case, device)
    for num_threads in (0, 1, 2, 3, 16):
        again = run(case, device, num_threads=num_threads)
        for name, result in {**outputs, **grads}.items():
            assert np.array_equal(result, {**again[0], **again[1]}[name]), (name, num_threads)


def test_nan_is_not_hidden(rng):
    case = random_case(rng, 40, 50, 24, 1.0, ids="different")
    case.candidates[45] = np.nan
    outputs, _ = run(case, Device("numpy"))
    assert np.isnan(outputs["loss"]).all()
    case.candidate_ids[45] = case.candidate_ids[7]
    outputs, _ = run(case, Device("numpy"))
    assert np.isnan(outputs["loss"]).sum() == 39
    assert np.isfinite(outputs["loss"][7])


def test_forward_without_rank_and_mean(rng, device):
    case = random_case(rng, 33, 70, 20, 0.1)
    outputs, _ = run(case, device)
    results = [device.poisoned(33) for _ in range(3)]
    workspace, _ = device.workspaces(33, 70, 20, "float32", with_mean=False)
    names = ("loss", "log_sum", "positive_score")
    native.inbatch_softmax_forward(**inputs_of(case, device), **dict(zip(names, results, strict=True)), **workspace)
    for name, result in zip(("loss", "log_sum_exp", "positive_score"), results, strict=True):
        np.testing.assert_allclose(device.back(result), outputs[name], rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("wrong", ["workspace", "mean"])
def test_a_gpu_needs_aligned_arrays(rng, wrong):
    device, case = Device("torch"), random_case(rng, 33, 70, 20, 0.1)
    results = {name: device.poisoned(33) for name in ("loss", "log_sum", "positive_score")}
    workspace, _ = device.workspaces(33, 70, 20, "float32")
    results |= {"mean": device.poisoned((33, 20)), **workspace}
    native.inbatch_softmax_forward(**inputs_of(case, device), **results)
    array = results[wrong]
    place = device.torch.zeros(array.numel() + 1, dtype=array.dtype, device="cuda")[1:].view(array.shape)
    behind = array.element_size()
    with pytest.raises(native.InvalidArgument, match=f"{wrong} must begin at .* Received: {behind} bytes behind one"):
        native.inbatch_softmax_forward(**inputs_of(case, device), **{**results, wrong: place})


def test_there_is_no_matrix_of_scores(run_python):
    done = run_python(
        "import resource\n"
        "import numpy as np\n"
        "from merlin_models import _native\n"
        "n, d = 20_000, 4\n"
        "rng = np.random.default_rng(0)\n"
        "x, ids = rng.normal(size=(n, d)).astype(np.float32), np.arange(n)\n"
        "one = np.ones(1, np.float32)\n"
        "rows = [np.ones(n, np.float32) for _ in range(5)]\n"
        "mean, sums, *grads = [np.ones_like(x) for _ in range(5)]\n"
        "call, threads = (x, x, x, one, ids, ids), {'num_threads': 4}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "_native.module().inbatch_softmax_forward(*call, *rows[:3], ids.copy(), mean, candidate_sums=sums, **threads)\n"
        "_native.module().inbatch_softmax_grad(*call, rows[1], rows[2], mean, *rows[3:], *grads, one.copy(), **threads)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    assert int(done.stdout) < 40_000  # KiB; the matrix would have 1.6 million


def test_wrong_arguments(rng):
    case = random_case(rng, 4, 6, 8, 1.0)
    inputs = inputs_of(case, Device("numpy"))
    results = {name: np.zeros(4, np.float32) for name in ("loss", "log_sum", "positive_score")}

    def refused(message: str, **changed):
        with pytest.raises(ValueError, match=message):
            native.inbatch_softmax_forward(**{**inputs, **results, **changed})

    refused(r"queries must have rank 2. Received shape: \(8\)", queries=case.queries[0])
    refused(r"queries must have dtype float32, float16 or bfloat16. Received: float64", queries=np.zeros((4, 8)))
    refused(r"dim must be in \[1, 512\]. Received: 513", queries=np.zeros((4, 513), np.float32))
    refused(r"dim must be in \[1, 512\]. Received: 0", queries=np.zeros((4, 0), np.float32))
    refused(r"candidates must have shape \(6, 8\). Received: \(6, 7\)", candidates=np.zeros((6, 7), np.float32))
    refused(r"candidates must have dtype float32. Received: float16", candidates=np.zeros((6, 8), np.float16))
    refused(r"positives must have shape \(4, 8\). Received: \(3, 8\)", positives=np.zeros((3, 8), np.float32))
    refused(r"scale must have shape \(1\). Received: \(2\)", scale=np.ones(2, np.float32))
    refused(r"positive_ids must have shape \(4\). Received: \(6\)", positive_ids=case.candidate_ids)
    refused(r"candidate_ids must have dtype int64. Received: int32", candidate_ids=np.zeros(6, np.int32))
    refused(r"candidate_log_q must have shape \(6\). Received: \(4\)", candidate_log_q=np.zeros(4, np.float32))
    refused(r"loss must have dtype float32. Received: float64", loss=np.zeros(4))
    refused(r"rank must have dtype int64. Received: float32", rank=np.zeros(4, np.float32))
    refused(r"mean must have shape \(4, 8\). Received: \(4\)", mean=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"dtype must be float32, float16 or bfloat16. Received: int8"):
        native.inbatch_softmax_workspaces(4, 6, 8, "int8")
