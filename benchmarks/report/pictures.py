"""Pictures of contests: bars for single cases, curves for cases that differ in one size.

Two machines' fonts give two files of the same picture, so a picture is compared by the data that it was drawn from: their
hash is in the file, in the PNG's text "benchmarks".
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pathlib
import struct
import zlib

from benchmarks.report.contests import FAMILIES, Contest, Key, devices
from benchmarks.report.lines import FORWARD, FULL, STEP
from benchmarks.report.tables import what

STYLE = 1  # to be counted up when pictures are drawn in another way
_KEYWORD = b"benchmarks"
_NOT_SHOWN = ("ours, float32 exact",)

BARS = {
    "gpu": (
        ("lookup, 26 tables, uniform ids", "embedding_bag", "mlperf26_400k_uniform", FORWARD, ""),
        ("lookup, 26 tables, Zipf ids", "embedding_bag", "mlperf26_400k_zipf1.2", FORWARD, ""),
        ("Adagrad step, 26 tables", "embedding_bag", "mlperf26_400k_uniform", STEP, "adagrad"),
        ("Adam step, 10,000,000 rows", "embedding_bag", "t1_10m_d128_hot1", STEP, "adam"),
        ("interaction and gradient, bfloat16", "dot_interaction", "b65536_f27_d128_bf16", FULL, ""),
        ("softmax and gradient, 32,768, float32", "inbatch_softmax", "b32768_d128_fp32", FULL, ""),
        ("DLRM's step, batch 65,536, bfloat16", "dlrm", "dlrm_cap1m_b65536_onehot_bf16", STEP, "adagrad"),
        ("two towers' step, batch 16,384", "two_tower", "two_tower_ml1m_b16384", STEP, "adam"),
    ),
    "cpu": (
        ("lookup, 4 x 1,000,000 rows", "embedding_bag", "cpu_t4_1m", FORWARD, ""),
        ("lookup, MovieLens", "embedding_bag", "movielens", FORWARD, ""),
        ("Adagrad step, 4 x 1,000,000 rows", "embedding_bag", "cpu_t4_1m", STEP, "adagrad"),
        ("Adagrad step, 1,000,000 rows", "embedding_bag", "cpu_rows_1m", STEP, "adagrad"),
        ("interaction and gradient", "dot_interaction", "b4096_f27_d128_fp32", FULL, ""),
        ("softmax and gradient, 8,192", "inbatch_softmax", "b8192_d128_fp32", FULL, ""),
        ("DLRM's step, batch 2,048", "dlrm", "dlrm_cap400k_b2048_onehot_fp32", STEP, "adagrad"),
        ("two towers' step, batch 4,096", "two_tower", "two_tower_ml1m_b4096", STEP, "adam"),
        ("Parquet to tensors, 5,000,000 rows", "loader", "loader_5m_b65536", FORWARD, ""),
    ),
}
AXES = {
    "batch": "examples of a batch",
    "rows": "rows of the table",
    "hotness": "ids an example",
    "dim": "columns",
    "catalogue": "candidates",
}
CURVES = {
    "Training steps of embedding tables": ("embedding_bag",),
    "Interaction and softmax with their gradients": ("dot_interaction", "inbatch_softmax"),
}
NAMES = {"cpu": "a CPU", "gpu": "a GPU"}

Panel = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Picture:
    """Attributes: name: of the file. kind: "bars" or "curves". panels: what is drawn: titles, names and milliseconds."""

    name: str
    title: str
    kind: str
    panels: list[Panel]

    @property
    def fingerprint(self) -> str:
        """Of everything that is drawn."""
        text = json.dumps([STYLE, self.title, self.kind, self.panels], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def draw(self, path: pathlib.Path) -> None:
        """Writes the PNG."""
        from benchmarks.report import drawing

        figure = getattr(drawing, self.kind)(self.panels)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_with_text(drawing.png(figure), self.fingerprint))


def wanted(contests: dict[Key, Contest]) -> list[Picture]:
    """The pictures that the rows give: those without data are left out."""
    pictures = []
    for kind, device in devices(contests.values()).items():
        bars = [
            {"title": title, "ms": _milliseconds(each)}
            for title, *key in BARS[kind]
            if (each := contests.get((*key, device))) and each.ours and each.best_peer
        ]
        if bars:
            title = f"Time of a call on {NAMES[kind]} ({device}), ms, shorter is faster"
            pictures.append(Picture(f"bars-{kind}.png", title, "bars", bars))
        curves = _curves(contests, device)
        for what_for, ops in CURVES.items():
            if panels := [panel for op, panel in curves if op in ops]:
                title = f"{what_for} by size on {NAMES[kind]} ({device}), ms, both axes logarithmic"
                name = f"curves-{kind}-{'tables' if 'embedding_bag' in ops else 'layers'}.png"
                pictures.append(Picture(name, title, "curves", panels))
    return pictures


def _milliseconds(contest: Contest) -> dict[str, float]:
    return {name: _rounded(row.p50_ms) for name, row in contest.rows.items() if name not in _NOT_SHOWN}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _curves(contests: dict[Key, Contest], device: str) -> list[tuple[str, Panel]]:
    """An op and its panel for each size and mode of cases called scale_<size>_<value>, where there are two values or more."""
    points: dict[tuple[str, str, str, str], dict[int, Contest]] = {}
    for (op, case, mode, rule, where), contest in contests.items():
        if case.startswith("scale_") and where == device and contest.rows:
            _, size, value = case.split("_")
            points.setdefault((op, size, mode, rule), {})[int(value)] = contest
    panels = []
    for (op, size, mode, rule), by_value in sorted(points.items()):
        if len(by_value) < 2 or (op == "embedding_bag" and mode == FORWARD):
            continue
        lines: dict[str, list[list[float]]] = {}
        for value, contest in sorted(by_value.items()):
            for name, ms in _milliseconds(contest).items():
                if name in FAMILIES:
                    lines.setdefault(name, []).append([value, ms])
        title = f"{what(mode, rule)} by {AXES[size]}" if rule else f"{op} by {AXES[size]}"
        panels.append((op, {"title": title, "lines": lines}))
    return panels


def _with_text(png: bytes, text: str) -> bytes:
    """A PNG with a text chunk before its end."""
    end = png.rindex(b"IEND") - 4
    data = b"tEXt" + _KEYWORD + b"\0" + text.encode()
    return png[:end] + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)) + png[end:]


def fingerprint_of(path: pathlib.Path) -> str:
    """Of the data that a picture was drawn from; "" where there is no such file, or no such text in it."""
    if not path.is_file():
        return ""
    stream = io.BytesIO(path.read_bytes())
    stream.seek(8)
    while head := stream.read(8):
        length, kind = struct.unpack(">I4s", head)
        data = stream.read(length)
        stream.read(4)
        if kind == b"tEXt" and data.startswith(_KEYWORD + b"\0"):
            return data.split(b"\0", 1)[1].decode()
    return ""
