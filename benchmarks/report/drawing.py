"""How pictures are drawn, by matplotlib. Colours are Okabe and Ito's, which people with any colour vision tell apart."""

from __future__ import annotations

import io
import math
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.report.tables import number

BLUE, SKY, GREY, LIGHT = "#0072B2", "#56B4E9", "#8A8A8A", "#D0D0D0"
COLOURS = {
    "ours": BLUE,
    "ours in TensorFlow": SKY,
    "FBGEMM TBE": "#D55E00",
    "torch": "#E69F00",
    "torch.compile": "#E69F00",
    "TensorFlow": "#009E73",
    "TensorFlow eager": "#009E73",
    "TensorFlow, XLA": "#009E73",
    "Keras": "#CC79A7",
    "keras-rs": "#CC79A7",
}
DASHES = {"torch.compile": "--", "TensorFlow, XLA": "--", "TensorFlow eager": ":", "keras-rs": "--"}
LOG_FROM = 8.0  # ratio of the longest to the shortest bar
TEXT = 8.5


def _figure(count: int, heights: list[float]) -> tuple[Figure, list[Any]]:
    """Two panels a row; heights of the rows in inches."""
    figure = Figure(figsize=(9.6, sum(heights)), layout="constrained", dpi=100)
    axes = figure.subplots(len(heights), 2, squeeze=False, gridspec_kw={"height_ratios": heights}).ravel().tolist()
    for unused in axes[count:]:
        unused.set_axis_off()
    for each in axes[:count]:
        for side in ("top", "right"):
            each.spines[side].set_visible(False)
        each.tick_params(labelsize=TEXT, length=3)
    return figure, axes[:count]


def _plain(value: float, _: int = 0) -> str:
    """4 M for four millions, 100k for a hundred thousand, 8,192 as it is."""
    for unit, letter in ((1_000_000, " M"), (1_000, "k")):
        if value >= 10 * unit / (10 if unit > 1_000 else 1) and value % unit == 0:
            return f"{value / unit:g}{letter}"
    return f"{value:,.0f}" if value >= 1_000 else f"{value:g}"


def bars(panels: list[dict[str, Any]]) -> Figure:
    """A panel a case: the fastest on top, ours in blue, each bar with its milliseconds."""
    most = [max(len(panel["ms"]) for panel in panels[i : i + 2]) for i in range(0, len(panels), 2)]  # of each row
    figure, axes = _figure(len(panels), [0.65 + 0.21 * count for count in most])
    for number_of_panel, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        pairs = sorted(panel["ms"].items(), key=lambda pair: -pair[1])
        longest, shortest = pairs[0][1], pairs[-1][1]
        colours = [
            BLUE if name.startswith("ours") else LIGHT if name == "gather of the rows" else GREY for name, _ in pairs
        ]
        names = [name for name, _ in pairs]
        axis.barh(names, [ms for _, ms in pairs], color=colours, height=0.72)
        axis.set_ylim(len(names) - 0.45 - most[number_of_panel // 2], len(names) - 0.45)  # bars are equally thick
        logarithmic = longest / shortest > LOG_FROM
        if logarithmic:
            axis.set_xscale("log")
            start = 10 ** math.floor(math.log10(shortest) - 0.15)
            axis.set_xlim(start, longest * (longest / start) ** 0.22)
            axis.xaxis.set_major_locator(LogLocator(10, numticks=6))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(FuncFormatter(_plain))
        else:
            axis.set_xlim(0, longest * 1.2)
            axis.locator_params(axis="x", nbins=4)
        for place, (_, ms) in enumerate(pairs):
            axis.annotate(number(ms), (ms, place), (4, 0), textcoords="offset points", va="center", fontsize=TEXT)
        for label, name in zip(axis.get_yticklabels(), names, strict=True):
            label.set_fontweight("bold" if name.startswith("ours") else "normal")
        axis.tick_params(axis="y", length=0)
        axis.set_title(panel["title"], fontsize=10, loc="left", fontweight="bold")
        axis.set_xlabel("ms, log scale" if logarithmic else "ms", fontsize=TEXT, labelpad=1)
    return figure


def curves(panels: list[dict[str, Any]]) -> Figure:
    """A panel a size: a line a provider, its name where the line ends."""
    figure, axes = _figure(len(panels), [2.9] * math.ceil(len(panels) / 2))
    for axis, panel in zip(axes, panels, strict=True):
        lines = {name: points for name, points in panel["lines"].items() if len(points) > 1}
        axis.set_xscale("log")
        axis.set_yscale("log")
        for name, points in lines.items():
            ours = name.startswith("ours")
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=3.5,
                linewidth=2.2 if ours else 1.4,
                color=COLOURS.get(name, GREY),
                linestyle=DASHES.get(name, "-"),
                zorder=3 if ours else 2,
            )
        xs = sorted({x for points in lines.values() for x, _ in points})
        axis.set_xlim(xs[0] / (xs[-1] / xs[0]) ** 0.04, xs[-1] * (xs[-1] / xs[0]) ** 0.62)
        axis.set_xticks(xs, [_plain(x) for x in xs])
        axis.xaxis.set_minor_locator(NullLocator())
        _label_ends(axis, lines)
        low, high = axis.get_ylim()
        steps = (1.0,) if high / low > 100 else (1.0, 2.0, 5.0)
        axis.yaxis.set_major_locator(LogLocator(10, subs=steps, numticks=12))
        axis.yaxis.set_major_formatter(FuncFormatter(_plain))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_ylabel("ms", fontsize=TEXT)
        axis.set_title(panel["title"], fontsize=10, loc="left", fontweight="bold")
        axis.grid(axis="y", color="#E8E8E8", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure


def _label_ends(axis: Any, lines: dict[str, list[list[float]]]) -> None:
    """Names at the lines' ends, pushed apart where they would lie on each other; the axis grows to hold them."""
    low, high = (math.log10(end) for end in axis.get_ylim())
    gap = (high - low) * 0.08
    ends = sorted((math.log10(points[-1][1]), name) for name, points in lines.items())
    places = [end for end, _ in ends]
    for _ in range(60):
        for i in range(1, len(places)):
            overlap = gap - (places[i] - places[i - 1])
            if overlap > 1e-9:
                places[i - 1] -= overlap / 2
                places[i] += overlap / 2
    axis.set_ylim(10 ** min(low, places[0] - gap), 10 ** max(high, places[-1] + gap))
    for place, (end, name) in zip(places, ends, strict=True):
        axis.annotate(
            name,
            (lines[name][-1][0], 10**end),
            (lines[name][-1][0] * 1.28, 10**place),
            va="center",
            fontsize=TEXT,
            color=COLOURS.get(name, GREY),
            fontweight="bold" if name.startswith("ours") else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": COLOURS.get(name, GREY),
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def png(figure: Figure) -> bytes:
    """A small file: of few colours, without a date or the name of a program."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None}, facecolor="white")
    image = Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, format="PNG", optimize=True)
    return small.getvalue()
