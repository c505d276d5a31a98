"""`buffer_size` in its three forms."""

from __future__ import annotations

import pytest

from merlin_models.loader import sizes


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (1, 1),
        (2**20, 2**20),
        ("4096", 4096),
        ("500MB", 500 * 10**6),
        ("500 mb", 500 * 10**6),
        ("2GiB", 2 * 2**30),
        ("1.5k", 1500),
        ("3KiB", 3072),
    ],
)
def test_bytes(given, size):
    assert sizes.parse_buffer_size(given) == size


def test_share_of_available_memory(monkeypatch):
    monkeypatch.setattr(sizes, "_host_memory", lambda: 1000)
    monkeypatch.setattr(sizes, "_group_memory", lambda: [])
    assert sizes.parse_buffer_size(0.1) == 100
    monkeypatch.setattr(sizes, "_group_memory", lambda: [500])
    assert sizes.parse_buffer_size(0.1) == 50


def test_available_memory_is_plausible():
    assert 2**20 < sizes.available_memory() < 2**50


@pytest.mark.parametrize("given", [0, -1, 0.0, 1.5, -0.1, True, None, "", "much", "5iB", "0", "-3MB", [1]])
def test_unfit(given):
    with pytest.raises(ValueError, match=r"buffer_size must be a float in \(0, 1\].*Received"):
        sizes.parse_buffer_size(given)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_require_integer(value):
    with pytest.raises(ValueError, match=r"batch_size must be an integer of at least 1. Received"):
        sizes.require_integer("batch_size", value, 1)
