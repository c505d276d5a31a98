"""lookup_interaction through merlin_models._C, without TensorFlow: NumPy and PyTorch's arrays, CPU and GPU."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from interaction_native import Device

from merlin_models import _native
from merlin_models.ops.dot_interaction import dot_interaction_reference
from merlin_models.ops.embedding_bag import embedding_bag_reference

native = _native.module()
TYPES = [
    ("float32", "float32"),
    ("float32", "bfloat16"),
    ("bfloat16", "bfloat16"),
    ("float32", "float16"),
    ("float16", "float16"),
]
ROUNDING = {"float32": 0.0, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@pytest.fixture(params=["numpy", pytest.param("torch", marks=pytest.mark.gpu)])
def device(request) -> Device:
    return Device(request.param)


def element(dtype: str):
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


class Problem:
    """Random tables, blocks of ids and a dense feature, in NumPy; and what the reference makes of them in float64."""

    def __init__(self, rng, batch, hots, dim, table_dtype, dtype, *, ids="int64", first=True, **options):
        self.dtype, self.options = dtype, options
        rows = (50, 7, 300)
        self.tables = [(rng.normal(size=(n, dim)) * 0.3).astype(element(table_dtype)) for n in rows]
        self.table_of = [int(t) for t in rng.integers(0, len(rows), len(hots))]
        self.ids = [
            rng.integers(0, rows[t], (batch, hot)).astype(ids) for t, hot in zip(self.table_of, hots, strict=True)
        ]
        self.combiners = [("sum", "mean", "sqrtn")[f % 3] for f in range(len(hots))]
        self.padding = [0 if f % 2 else None for f in range(len(hots))]
        self.first = (rng.normal(size=(batch, dim)) * 0.3).astype(element(dtype)) if first else None
        width = dot_interaction_reference(self.vectors(), **options)[0].shape[1]
        self.grad = rng.normal(size=(batch, width)).astype(element(dtype))

    def vectors(self):
        features = [
            (ids.reshape(-1), np.arange(len(ids) + 1) * ids.shape[1], None, padding)
            for ids, padding in zip(self.ids, self.padding, strict=True)
        ]
        pooled, *_ = embedding_bag_reference(self.tables, features, self.table_of, self.combiners)
        rounded = [vectors.astype(element(self.dtype)).astype(np.float64) for vectors in pooled]
        return rounded if self.first is None else [self.first.astype(np.float64), *rounded]

    def expected(self):
        return dot_interaction_reference(self.vectors(), self.grad.astype(np.float64), **self.options)

    def magnitudes(self):
        absolute = [np.abs(vectors) for vectors in self.vectors()]
        return dot_interaction_reference(absolute, np.abs(self.grad.astype(np.float64)), **self.options)

    def arguments(self, device: Device) -> dict:
        return {
            "tables": [device.to(table) for table in self.tables],
            "ids": [device.to(ids) for ids in self.ids],
            "table_of_feature": self.table_of,
            "combiners": self.combiners,
            "padding_ids": self.padding,
            "first": None if self.first is None else device.to(self.first),
            **self.options,
        }

    def run(self, device: Device, **more):
        arguments = {**self.arguments(device), **more}
        batch, dim = len(self.ids[0]), self.tables[0].shape[1]
        output = device.to(np.full(self.grad.shape, np.nan, element(self.dtype)))
        native.lookup_interaction_forward(**arguments, output=output)
        pooled_grad = device.to(np.full((batch, len(self.ids) * dim), np.nan, element(self.dtype)))
        vectors = device.to(np.full((batch, len(self.ids) * dim), np.nan, element(self.dtype)))
        first_grad = None if self.first is None else device.to(np.full((batch, dim), np.nan, element(self.dtype)))
        native.lookup_interaction_grad(
            **arguments, grad=device.to(self.grad), pooled_grad=pooled_grad, first_grad=first_grad, vectors=vectors
        )
        grads = np.split(device.back(pooled_grad), len(self.ids), axis=1)
        return device.back(output), grads if first_grad is None else [device.back(first_grad), *grads]


def check(rng, device, *args, tf32=False, **options):
    problem = Problem(rng, *args, **options)
    output, grads = problem.run(device, **({"tf32": True} if tf32 else {}))
    (expected, expected_grads), (size, size_grads) = problem.expected(), problem.magnitudes()
    # Two vectors that may be rounded the other way than the reference's, and the product's own rounding.
    unit = max(2.5 * ROUNDING[problem.dtype], 2e-3 if tf32 else 1e-5)
    for actual, wanted, magnitude in zip(
        [output, *grads], [expected, *expected_grads], [size, *size_grads], strict=True
    ):
        error = np.abs(actual - wanted)
        assert (error <= unit * magnitude + 1e-6).all(), (args, options, float(error.max()))


@pytest.mark.parametrize(("table_dtype", "dtype"), TYPES)
@pytest.mark.parametrize(
    "hots",
    [(1,), (1,) * 6, (1,) * 16, (1,) * 31, (1, 3, 2, 1), (5,) * 17, (16, 9, 1)],
    ids=lambda hots: f"{len(hots)}x{max(hots)}",
)
def test_all_types_and_hotness(rng, device, table_dtype, dtype, hots):
    for batch, dim, first, ids, options in (
        (37, 16, True, "int64", {"concat_first": True, "pad_to": 8}),
        (3, 40, len(hots) == 1, "int32", {"order": "upper", "self_interaction": True}),
        (255, 128, True, "int32", {"order": "upper", "pad_to": 4}),
        (1, 264, True, "int64", {"concat_first": True}),
    ):
        check(rng, device, batch, hots, dim, table_dtype, dtype, ids=ids, first=first, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("hots", [(1,) * 26, (4,) * 26])
def test_tf32(rng, hots):
    check(rng, Device("torch"), 33, hots, 64, "float32", "float32", tf32=True, concat_first=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_more_samples_than_a_wave_of_blocks(rng, dtype):
    check(rng, Device("torch"), 20011, (1,) * 20, 8, dtype, dtype, concat_first=True)
    check(rng, Device("torch"), 20011, (2,) * 9, 8, dtype, dtype)


@pytest.mark.parametrize(("table_dtype", "dtype"), TYPES)
def test_largest_shape(rng, device, table_dtype, dtype):
    """On CUDA, of all the most shared memory, with fewer samples a block than else."""
    check(rng, device, 29, (16,) * 31, 264, table_dtype, dtype, concat_first=True, pad_to=1024)


def test_results_repeat_to_the_bit(rng, device):
    problem = Problem(rng, 100, (1, 3) * 10, 32, "float32", "float32")
    one, other = problem.run(device), problem.run(device)
    for a, b in zip([one[0], *one[1]], [other[0], *other[1]], strict=True):
        assert np.array_equal(a, b)


def test_memory_of_the_caller_changes_nothing(rng):
    problem = Problem(rng, 9, (1, 3), 16, "float32", "float32")
    output, vectors = np.zeros_like(problem.grad), np.full((9, 32), np.nan, np.float32)
    native.lookup_interaction_forward(**problem.arguments(Device("numpy")), output=output, vectors=vectors)
    np.testing.assert_array_equal(output, problem.run(Device("numpy"))[0].astype(np.float32))
    np.testing.assert_allclose(vectors, np.concatenate(problem.vectors()[1:], axis=1), rtol=1e-5, atol=1e-6)


def test_empty_batch(rng, device):
    output, grads = Problem(rng, 0, (1, 2), 16, "float32", "float32").run(device)
    assert output.shape == (0, 3)
    assert all(grad.shape == (0, 16) for grad in grads)


@pytest.mark.gpu
def test_a_gpu_notes_wrong_ids(rng):
    for hots in ((1, 1), (2, 1)):
        problem = Problem(rng, 5, hots, 16, "float32", "float32", first=False)
        problem.padding = [None, None]
        problem.ids[0][3, 0] = 10**6 if hots[0] == 1 else -4
        output, _ = problem.run(Device("torch"))
        assert hots[0] > 1 or output[3, 0] == 0
        message = native.take_device_error()
        assert str(problem.ids[0][3, 0]) in message
        assert native.take_device_error() == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": []}, r"ids must hold at least one array. Received: none"),
        ({"combiners": ["sum"]}, r"must have one entry a feature"),
        ({"table_of_feature": [0, 3]}, r"table_of_feature\[1\] must be in \[0, 3\). Received: 3"),
        ({"table_of_feature": [0, 2]}, r"Tables must have dim 16. Received: 8"),
        ({"ids": [np.zeros((4, 1), np.int64), np.zeros((5, 1), np.int64)]}, r"ids\[1\] must have 4 rows, as ids\[0\]"),
        ({"first": np.zeros((4, 8), np.float32)}, r"first must have dtype float32 and shape \(4, 16\)"),
        ({"first": np.zeros((4, 16), np.float16)}, r"first must have dtype float32 and shape \(4, 16\)"),
        ({"output": np.zeros((4, 2), np.float32)}, r"output must have shape \(4, 1\)"),
        ({"order": "left"}, r"order must be 'lower' or 'upper'"),
        ({"precision": "high"}, r"options must be order, .* Received: 'precision'"),
    ],
)
def test_wrong_input(change, message):
    arguments = {
        "tables": [np.ones((5, 16), np.float32), np.ones((9, 16), np.float32), np.ones((9, 8), np.float32)],
        "ids": [np.zeros((4, 1), np.int64), np.ones((4, 2), np.int64)],
        "table_of_feature": [0, 1],
        "combiners": ["sum", "mean"],
        "padding_ids": [None, None],
        "output": np.zeros((4, 1), np.float32),
    }
    native.lookup_interaction_forward(**arguments)
    with pytest.raises(native.InvalidArgument, match=message):
        native.lookup_interaction_forward(**{**arguments, **change})


def test_gradients_of_first_are_asked_for_with_first():
    arguments = {
        "tables": [np.ones((5, 16), np.float32)],
        "ids": [np.zeros((4, 1), np.int64)] * 2,
        "table_of_feature": [0, 0],
        "combiners": ["sum", "sum"],
        "padding_ids": [None, None],
        "grad": np.zeros((4, 1), np.float32),
        "pooled_grad": np.zeros((4, 32), np.float32),
    }
    native.lookup_interaction_grad(**arguments)
    with pytest.raises(native.InvalidArgument, match="first_grad must be given if first is, and only then"):
        native.lookup_interaction_grad(**arguments, first_grad=np.zeros((4, 16), np.float32))
    with pytest.raises(native.InvalidArgument, match=r"pooled_grad must have dtype float32 and shape \(4, 32\)"):
        native.lookup_interaction_grad(**{**arguments, "pooled_grad": np.zeros((4, 16), np.float32)})


@pytest.mark.gpu
@pytest.mark.parametrize("wrong", ["tables", "first", "pooled_grad", "first_grad"])
def test_a_gpu_needs_aligned_arrays(rng, wrong):
    device, problem = Device("torch"), Problem(rng, 4, (1, 1), 16, "float32", "float32")
    pooled, first = (device.to(np.zeros((4, width), np.float32)) for width in (32, 16))
    arguments = {
        **problem.arguments(device),
        "grad": device.to(problem.grad),
        "pooled_grad": pooled,
        "first_grad": first,
    }
    native.lookup_interaction_grad(**arguments)

    def moved(array):
        place = device.torch.zeros(array.numel() + 1, dtype=array.dtype, device="cuda")[1:].view(array.shape)
        return place.copy_(array)

    arguments[wrong] = list(map(moved, arguments[wrong])) if wrong == "tables" else moved(arguments[wrong])
    with pytest.raises(native.InvalidArgument, match=r"a multiple of 16 bytes in .*Received: 4 bytes behind one"):
        native.lookup_interaction_grad(**arguments)


@pytest.mark.gpu
def test_a_gpu_needs_memory_for_the_vectors_of_several_ids(rng):
    device, problem = Device("torch"), Problem(rng, 4, (1, 2), 16, "float32", "float32", first=False)
    grads = {"grad": device.to(problem.grad), "pooled_grad": device.to(np.zeros((4, 32), np.float32))}
    with pytest.raises(native.InvalidArgument, match="vectors must be given on CUDA if a feature has more than one id"):
        native.lookup_interaction_grad(**problem.arguments(device), **grads)
    with pytest.raises(native.InvalidArgument, match=r"vectors must have dtype float32 and shape \(4, 32\)"):
        native.lookup_interaction_grad(
            **problem.arguments(device), **grads, vectors=device.to(np.zeros((4, 16), np.float32))
        )
