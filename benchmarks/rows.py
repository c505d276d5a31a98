"""Rows: the one schema of every measurement, its CSV file and its table on the screen."""

from __future__ import annotations

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterable

import numpy as np

OURS = ("merlin_native", "merlin_tf")


@dataclasses.dataclass
class Row:
    """One provider on one case. Fields that do not apply are NaN or empty.

    ``status`` is "ok", or why there are no numbers: "missing" (not installed), "unsupported" (the provider
    has no such thing), "skipped" (would not fit in memory), "refused" (its result is not equal to the
    reference), "failed" (it raised); ``reason`` says more.
    """

    op: str
    case: str
    provider: str
    mode: str
    optimizer: str
    status: str
    reason: str = ""
    dtype: str = ""
    ids: str = ""
    p50_ms: float = math.nan
    p20_ms: float = math.nan
    p80_ms: float = math.nan
    samples: int = 0
    bytes_algorithmic: int = 0
    bytes_compulsory: int = 0
    gbps_algorithmic: float = math.nan
    gbps_compulsory: float = math.nan
    copy_gbps: float = math.nan
    share_of_copy: float = math.nan
    ratio_to_ours: float = math.nan
    peak_extra_mb: float = math.nan
    peak_process_mb: float = math.nan
    gemm_float32_tflops: float = math.nan
    gemm_bfloat16_tflops: float = math.nan
    error: float = math.nan
    device: str = ""
    versions: str = ""
    timestamp: str = ""
    commit: str = ""
    config: str = ""


FIELDS = tuple(field.name for field in dataclasses.fields(Row))
_TYPES = {field.name: {"str": str, "float": float, "int": int}[field.type] for field in dataclasses.fields(Row)}


def summarize(milliseconds: list[float]) -> dict[str, float]:
    """Median with the 20th and 80th percentile (linear between samples).

    Raises:
        ValueError: if there are no samples, or one is not a positive number.
    """
    if not milliseconds or not all(math.isfinite(ms) and ms > 0 for ms in milliseconds):
        raise ValueError(f"milliseconds must be positive numbers, at least one. Received: {milliseconds}")
    p20, p50, p80 = np.percentile(milliseconds, [20, 50, 80])
    return {"p50_ms": float(p50), "p20_ms": float(p20), "p80_ms": float(p80), "samples": len(milliseconds)}


def set_ratios(rows: list[Row], ours: tuple[str, ...] = OURS) -> None:
    """Sets ``ratio_to_ours``: a provider's time over ours on the same case, mode and optimizer.

    Rows measured in one process are compared with each other first. Where both of ours ran there, providers
    driven by TensorFlow or Keras are compared with ``merlin_tf``, all others with ``merlin_native``.
    """
    times = {(r.case, r.mode, r.optimizer, r.device, r.provider): r.p50_ms for r in rows if r.status == "ok"}
    for row in rows:
        if row.status != "ok" or (row.provider == "gather_floor" and row.mode != "forward"):
            continue
        through_tf = row.provider.startswith(("tf_", "keras", "merlin_tf"))
        for name in reversed(ours) if through_tf else ours:
            base = times.get((row.case, row.mode, row.optimizer, row.device, name))
            if base:
                row.ratio_to_ours = row.p50_ms / base
                break


def write_csv(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Appends rows; a new file gets the header.

    Raises:
        ValueError: if the file has another header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    if not new:
        with path.open(newline="") as file:
            header = next(csv.reader(file))
        if tuple(header) != FIELDS:
            raise ValueError(
                f"{path} must have the columns {', '.join(FIELDS)} (write to another file). Received: {', '.join(header)}"
            )
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(FIELDS)
        for row in rows:
            writer.writerow([_text(getattr(row, name)) for name in FIELDS])


def read_csv(path: pathlib.Path) -> list[Row]:
    """Rows of a file that :func:`write_csv` wrote; columns that an older file lacks are NaN or empty."""
    with path.open(newline="") as file:
        return [
            Row(**{k: _TYPES[k](v) if v or _TYPES[k] is str else math.nan for k, v in row.items()})
            for row in csv.DictReader(file)
        ]


def print_rows(rows: list[Row]) -> None:
    """Prints one table a case and mode, the fastest first, and below it who has no numbers and why."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.op, row.case, row.mode, row.optimizer, row.device), []).append(row)
    for (op, case, mode, optimizer, device), group in groups.items():
        copy, *gemm = (
            next((value for r in group if math.isfinite(value := getattr(r, name))), math.nan)
            for name in ("copy_gbps", "gemm_float32_tflops", "gemm_bfloat16_tflops")
        )
        what = f"{mode} ({optimizer})" if optimizer else mode
        console.print(f"\n[bold]{op} {case}[/]: {what}, {group[0].dtype}, {group[0].ids} ids", highlight=False)
        rates = [
            f"{rate:.3g} TFLOP/s {kind}" for rate, kind in zip(gemm, ("float32", "bfloat16"), strict=True) if rate > 0
        ]
        console.print(f"{device}, {', '.join([f'copies {copy:.0f} GB/s', *rates])}", highlight=False)
        table = Table()
        table.add_column("provider")
        for name in (
            "p50 ms",
            "p20",
            "p80",
            "GB/s algo",
            "GB/s comp",
            "of copy",
            "x ours",
            "extra MB",
            "process MB",
            "error",
        ):
            table.add_column(name, justify="right")
        for row in sorted((r for r in group if r.status == "ok"), key=lambda r: r.p50_ms):
            style = "bold green" if row.provider in OURS else None
            table.add_row(
                row.provider,
                *(_cell(v, 3) for v in (row.p50_ms, row.p20_ms, row.p80_ms)),
                *(_cell(v, 1) for v in (row.gbps_algorithmic, row.gbps_compulsory)),
                _cell(row.share_of_copy, 2),
                _cell(row.ratio_to_ours, 2),
                *(_cell(v, 0) for v in (row.peak_extra_mb, row.peak_process_mb)),
                f"{row.error:.0e}" if math.isfinite(row.error) else "-",
                style=style,
            )
        console.print(table)
        for row in group:
            if row.status != "ok":
                console.print(f"  {row.provider}: {row.status}: {row.reason}", markup=False, highlight=False)


def _cell(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)
