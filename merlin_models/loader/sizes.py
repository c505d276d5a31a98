"""Numbers among the arguments: integers, and how many bytes a loader may hold."""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

import numpy as np

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

DEFAULT_SHARE = 0.1
REPEATABLE_BYTES = 10**9


def part_bytes(buffer_size: float | int | str | None, seed: int | None, seed_fn: Any) -> int:
    """Bytes of a part: of `buffer_size`, or a default.

    Parts decide which rows are mixed with which. An order that is to come again needs parts that do not hang on how much
    memory is free: with a seed the default is a constant, and a share is refused.

    Args:
        buffer_size: as of :func:`parse_buffer_size`, or None: `REPEATABLE_BYTES` with a seed or a seed's function,
            `DEFAULT_SHARE` without.
        seed, seed_fn: what the loader's order is made from; None for an order that nobody asks for again.

    Raises:
        ValueError: `buffer_size` is unfit, or a share together with `seed`.
    """
    repeatable = seed is not None or seed_fn is not None
    if buffer_size is None:
        return REPEATABLE_BYTES if repeatable else parse_buffer_size(DEFAULT_SHARE)
    size = parse_buffer_size(buffer_size)
    if repeatable and isinstance(buffer_size, float):
        rule = "a share of the memory that is available now would give other orders another time"
        if seed is not None:
            raise ValueError(
                f"buffer_size must be bytes, such as '1GB', where seed is given: {rule}. Received: {buffer_size!r}."
            )
        warnings.warn(
            f"buffer_size should be bytes, such as '1GB', where seed_fn is given: {rule}. Received: {buffer_size!r}.",
            stacklevel=3,
        )
    return size


def parse_buffer_size(buffer_size: float | int | str) -> int:
    """Bytes meant by `buffer_size`.

    Args:
        buffer_size: float in (0, 1]: this share of the host memory available now; int: bytes; str: bytes with
            a unit, such as "500MB" (10**6) or "2GiB" (2**30).

    Returns:
        Bytes, at least 1.

    Raises:
        ValueError: none of these.
    """
    if isinstance(buffer_size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", buffer_size.lower())
        if match and not (match[3] and not match[2]):
            size = int(float(match[1]) * (_BINARY_UNITS if match[3] else _UNITS)[match[2]])
            if size >= 1:
                return size
    elif isinstance(buffer_size, float) and 0 < buffer_size <= 1:
        return max(1, int(buffer_size * available_memory()))
    elif isinstance(buffer_size, int) and not isinstance(buffer_size, bool) and buffer_size >= 1:
        return buffer_size
    raise ValueError(
        "buffer_size must be a float in (0, 1] (share of the available memory), a positive int (bytes) or a "
        f"string such as '500MB' or '2GiB'. Received: {buffer_size!r}."
    )


def available_memory() -> int:
    """Bytes that this process could still take: free memory of the host, or what its control group leaves."""
    return min([_host_memory(), *_group_memory()])


def _host_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass  # not Linux: half of the physical memory is taken as free
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _group_memory() -> list[int]:
    """What the control group (container limit, version 2) leaves; empty without a limit."""
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            used = int(file.read())
    except OSError:
        return []
    return [] if limit == "max" else [max(1, int(limit) - used)]


def require_integer(name: str, value: Any, least: int) -> int:
    """`value` as int; ValueError naming the argument where it is none or less than `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}. Received: {value!r}.")
    return int(value)


def require_rank(global_size: Any, global_rank: Any) -> tuple[int, int]:
    """How many processes share the data, and which this one is; ValueError where the two arguments do not fit."""
    if (global_size is None) != (global_rank is None):
        raise ValueError(
            "global_size and global_rank must be given together. "
            f"Received: global_size={global_size}, global_rank={global_rank}."
        )
    size = 1 if global_size is None else require_integer("global_size", global_size, 1)
    rank = 0 if global_rank is None else require_integer("global_rank", global_rank, 0)
    if rank >= size:
        raise ValueError(f"global_rank must be less than global_size={size}. Received: {rank}.")
    return size, rank
