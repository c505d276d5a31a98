"""dot_interaction through merlin_models._C, without TensorFlow: NumPy and DLPack arrays, CPU and GPU."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest
from interaction_native import Device

from merlin_models import _native
from merlin_models.ops.dot_interaction import dot_interaction_reference

native = _native.module()
FEATURES = (2, 3, 8, 15, 16, 17, 27, 32, 33, 64, 100)
DIMS = (1, 4, 7, 12, 16, 24, 32, 33, 64, 128, 256)
BATCHES = (0, 1, 3, 255)


@pytest.fixture(params=["numpy", pytest.param("torch", marks=pytest.mark.gpu)])
def device(request) -> Device:
    return Device(request.param)


def split(rng, x):
    """The features of x as one tensor, as the bottom's row and the others, or as a tensor each."""
    way = rng.integers(3)
    if way == 0 or x.shape[1] < 2:
        return [x]
    if way == 1:
        return [np.ascontiguousarray(x[:, 0]), np.ascontiguousarray(x[:, 1:])]
    return [np.ascontiguousarray(x[:, i]) for i in range(x.shape[1])]


def tolerance(dtype: str, tf32: bool, terms: int, magnitude: np.ndarray) -> np.ndarray:
    """Of a sum of ``terms`` terms whose absolute values add up to ``magnitude``; tensor cores cut sums off, not round."""
    if dtype == "float32":
        return magnitude * (2e-3 if tf32 else 2e-6 + 1.5e-8 * terms) + 1e-30
    return magnitude * 1e-5 + {"float16": 1e-7, "bfloat16": 1e-30}[dtype]


def check(rng, device, batch, count, dim, dtype, *, tf32=False, scale=1.0, **options):
    element = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    x = (rng.normal(size=(batch, count, dim)) * scale).astype(element)
    parts = split(rng, x)
    wide = [part.astype(np.float64) for part in parts]
    width = dot_interaction_reference(wide, **options)[0].shape[1]
    grad = rng.normal(size=(batch, width)).astype(element)
    expected, expected_grads = dot_interaction_reference(wide, grad.astype(np.float64), **options)
    size, size_grads = dot_interaction_reference([np.abs(p) for p in wide], np.abs(grad.astype(np.float64)), **options)

    features = [device.to(part) for part in parts]
    output = device.to(np.full((batch, width), np.nan, element))
    native.dot_interaction_forward(features, output, tf32=tf32, **options)
    grads = [device.to(np.full(part.shape, np.nan, element)) for part in parts]
    native.dot_interaction_grad(features, device.to(grad), grads, tf32=tf32, **options)
    unit = {"float32": 0.0, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]  # one rounding of the result
    for actual, wanted, magnitude in zip(
        [output, *grads], [expected, *expected_grads], [size, *size_grads], strict=True
    ):
        error = np.abs(device.back(actual) - wanted)
        allowed = tolerance(dtype, tf32, max(dim, count), magnitude) + unit * np.abs(wanted)
        assert (error <= allowed).all(), (batch, count, dim, dtype, options, float((error / allowed).max()))
        assert not np.isnan(error).any()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("count", FEATURES)
def test_all_shapes(rng, device, dtype, count):
    for dim in DIMS:
        for batch in BATCHES:
            options = {
                "order": rng.choice(["lower", "upper"]),
                "self_interaction": bool(rng.integers(2)),
                "concat_first": bool(rng.integers(2)),
                "pad_to": int(rng.choice([1, 4, 8])),
            }
            check(rng, device, batch, count, dim, dtype, scale=dim**-0.25, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("count", FEATURES)
def test_tf32(rng, count):
    for dim in (4, 12, 16, 20, 33, 128):
        check(rng, Device("torch"), 5, count, dim, "float32", tf32=True, concat_first=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("count", [34, 65, 80, 81, 96, 97, 100, 112, 113, 127, 128])
def test_samples_of_a_block_of_threads_each(rng, count, dtype):
    """Warps share a sample: blocks of 32 features and tiles of 16 that are full or not, one panel of columns or more."""
    tf32 = dtype == "tf32"
    options = itertools.product(["lower", "upper"], [False, True], [False, True])
    dims = itertools.cycle([1, 5, 16, 24, 32, 33, 40, 64, 100, 136, 161])
    for order, self_interaction, concat_first in options:
        for batch, pad_to in ((1, 1), (3, 8)):
            dim = next(dims)
            shape = {
                "order": order,
                "self_interaction": self_interaction,
                "concat_first": concat_first,
                "pad_to": pad_to,
            }
            type_ = "float32" if tf32 else dtype
            check(rng, Device("torch"), batch, count, dim, type_, tf32=tf32, scale=dim**-0.25, **shape)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extremes(rng, device, dtype):
    check(rng, device, 2, 128, 1024, dtype, scale=0.1, concat_first=True, self_interaction=True, pad_to=8)
    check(rng, device, 3, 128, 40, dtype, scale=0.4, concat_first=True, order="upper", pad_to=1024)
    check(rng, device, 3, 1, 5, dtype, self_interaction=True)
    check(rng, device, 3, 1, 5, dtype, concat_first=True)
    check(rng, device, 3, 1, 5, dtype)  # no pairs at all


@pytest.mark.gpu
def test_more_samples_than_a_wave_of_blocks(rng):
    check(rng, Device("torch"), 20011, 9, 8, "bfloat16", scale=0.5, concat_first=True)
    check(rng, Device("torch"), 20011, 20, 12, "float32", scale=0.5)
    check(rng, Device("torch"), 2503, 34, 8, "bfloat16", scale=0.5, pad_to=4)
    check(rng, Device("torch"), 1201, 50, 32, "bfloat16", scale=0.4, concat_first=True)
    check(rng, Device("torch"), 20011, 27, 16, "float32", scale=0.5, tf32=True, concat_first=True)
    check(rng, Device("torch"), 1201, 65, 12, "float32", scale=0.5, self_interaction=True)
    check(rng, Device("torch"), 1201, 65, 40, "float16", scale=0.3, order="upper")
    check(rng, Device("torch"), 1201, 100, 5, "bfloat16", scale=0.5, concat_first=True)


@pytest.mark.parametrize("count", [27, 50, 100])
def test_results_repeat_to_the_bit(rng, device, count):
    x = device.to(rng.normal(size=(100, count, 33)).astype(np.float32))
    outputs = []
    for _ in range(2):
        shapes = (100, count * (count - 1) // 2), (100, count, 33)
        output, grads = (device.to(np.zeros(shape, np.float32)) for shape in shapes)
        native.dot_interaction_forward([x], output)
        native.dot_interaction_grad([x], output, [grads])
        outputs.append((device.back(output), device.back(grads)))
    for one, other in zip(*outputs, strict=True):
        assert np.array_equal(one, other)


def test_gradients_too_large_for_the_caches_are_those_of_their_parts(rng):
    """They are written past the caches where they lie at whole cache lines."""
    batch, count, dim = 700, 27, 256

    def at_cache_lines(shape):
        memory = np.full(int(np.prod(shape)) + 16, np.nan, np.float32)
        start = -memory.ctypes.data % 64 // 4
        return memory[start : start + int(np.prod(shape))].reshape(shape)

    x, grad = at_cache_lines((batch, count, dim)), rng.normal(size=(batch, count * (count - 1) // 2)).astype(np.float32)
    x[:] = rng.normal(size=x.shape)
    whole, parts = at_cache_lines(x.shape), at_cache_lines(x.shape)
    assert whole.nbytes > 16 << 20
    native.dot_interaction_grad([x], grad, [whole])
    for begin in range(0, batch, 100):
        part = slice(begin, begin + 100)
        native.dot_interaction_grad([x[part]], grad[part], [parts[part]])
    np.testing.assert_array_equal(whole, parts)


def test_infinities_stay_where_they_are(device):
    x = np.ones((2, 20, 40), np.float32)
    x[0, 3, 5] = np.inf
    output = device.to(np.zeros((2, 190), np.float32))
    native.dot_interaction_forward([device.to(x)], output, tf32=True)
    output = device.back(output)
    assert np.isfinite(output[1]).all()
    assert np.isinf(output[0]).sum() == 19


def test_wrong_arguments(rng):
    x = rng.normal(size=(4, 3, 8)).astype(np.float32)
    out = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"features must hold at least one tensor"):
        native.dot_interaction_forward([], out)
    with pytest.raises(ValueError, match=r"features\[0\] must have rank 2 or 3. Received rank 1"):
        native.dot_interaction_forward([x[0, 0]], out)
    with pytest.raises(ValueError, match=r"features\[1\] must have the dtype, the batch and the last dimension"):
        native.dot_interaction_forward([x, x[:, :, :4].copy()], out)
    with pytest.raises(ValueError, match=r"output must have the dtype of the features and shape \(4, 3\)"):
        native.dot_interaction_forward([x], np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"order must be 'lower' or 'upper'. Received: 'left'"):
        native.dot_interaction_forward([x], out, order="left")
    with pytest.raises(ValueError, match=r"features must be at most 128 together. Received: 129"):
        native.dot_interaction_forward([np.zeros((1, 129, 2), np.float32)], out)
    with pytest.raises(ValueError, match=r"dim must be in \[1, 1024\]. Received: 1025"):
        native.dot_interaction_forward([np.zeros((1, 2, 1025), np.float32)], out)
    with pytest.raises(ValueError, match=r"grads must hold one array for each of features. Received: 0"):
        native.dot_interaction_grad([x], out, [])
