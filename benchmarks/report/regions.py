"""The generated parts of README.md and of docs/: what stands between <!-- benchmarks:NAME --> and <!-- /benchmarks -->."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from benchmarks.report.contests import OF_TENSORFLOW, Contest, devices
from benchmarks.report.lines import (
    BAR,
    BARS,
    CPU_LINES,
    DOT,
    EMBEDDING_LINES,
    FORWARD,
    FULL,
    LINES,
    SOFTMAX,
    Contests,
    Line,
    select,
    unmeasured,
)
from benchmarks.report.losses import explained, losses, named
from benchmarks.report.tables import (
    examples_a_second,
    milliseconds,
    number,
    provenance,
    ratio_to_best_peer,
    table,
    times,
)


def how_fast(contests: Contests) -> str:
    """README's table: our best beside the best peer, the same among what runs in TensorFlow, and plain Keras."""
    parts, missing, lost = [], unmeasured(contests), losses(contests)
    for kind, device in reversed(devices(contests.values()).items()):
        lines = select(contests, device, LINES[kind])
        if not lines:
            continue
        body = []
        for label, each in lines:
            peer, ours_tf, peer_tf = each.best_peer, each.rows.get("ours in TensorFlow"), each.best_of(OF_TENSORFLOW)
            line = [label, milliseconds(each.ours), f"{peer[0]} {milliseconds(peer[1])}" if peer else "-"]
            line.append(times(ratio_to_best_peer(each)) if peer else "-")
            line += [milliseconds(ours_tf), f"{peer_tf[0]} {milliseconds(peer_tf[1])}" if peer_tf else "-"]
            line.append(times(peer_tf[1].p50_ms / ours_tf.p50_ms) if ours_tf and peer_tf else "-")
            body.append([*line, milliseconds(each.rows.get("Keras"))])
        parts.append(f"{provenance(each for _, each in lines)} ms:")
        head = [
            "",
            "ours",
            "best other",
            "times faster",
            "ours in TensorFlow",
            "its best other",
            "times faster",
            "Keras",
        ]
        parts.append(table(head, body))
        if device in missing:
            parts.append(f"Not measured on this device: {'; '.join(missing[device])}.")
        parts.append(named(lost.get(device, [])))
    return "\n\n".join(filter(None, parts)) or "No rows yet."


def slower(contests: Contests) -> str:
    """On each device all cases in which a peer is faster, with the reasons."""
    lost = losses(contests)
    parts = [f"On {device}:\n\n{explained(of_device)}" for device, of_device in reversed(lost.items())]
    return "\n\n".join(parts) or "No rows yet."


def where_it_stands(contests: Contests) -> str:
    """embedding_bag on a GPU, beside FBGEMM and the goals."""
    device = devices(contests.values()).get("gpu", "")
    lines = select(contests, device, EMBEDDING_LINES)
    names = ("FBGEMM TBE", "torch", "TensorFlow", "TensorFlow, XLA", "Keras")
    names = tuple(name for name in names if any(name in each.rows for _, each in lines))
    body = []
    for label, each in lines:
        dense = each.fastest("merlin_native_dense", "merlin_native_dense_graph")
        splits = each.fastest("merlin_native", "merlin_native_graph")
        line = [label, milliseconds(dense), milliseconds(splits)]
        line += [milliseconds(each.rows.get(name)) for name in ("ours in TensorFlow", "ours, 8 steps a call")]
        line.append(f"{each.rows.get('ours', each.ours).share_of_copy:.2f}")
        line += [milliseconds(each.rows.get(name)) for name in names]
        body.append([*line, BARS.get((each.case, each.mode, each.optimizer), "none")])
    if not body:
        return "No rows yet."
    ours = ["ours, dense ids", "ours, row_splits", "ours in TensorFlow", "8 steps a call"]
    head = ["shape", *ours, "share", *names, BAR]
    return f"{provenance(each for _, each in lines)} Medians in ms.\n\n{table(head, body)}"


def cpu(contests: Contests) -> str:
    """All on a CPU, ours beside each peer."""
    return _by_family(contests, "cpu", CPU_LINES, share=False)


def dot_interaction(contests: Contests) -> str:
    """dot_interaction on a GPU, and what fusing it with the lookups gives."""
    modes = {FORWARD: "forward", FULL: "forward and backward"}
    lines = tuple(
        (f"{dtype}, {text}", DOT, f"b65536_f27_d128_{short}", mode, "")
        for dtype, short in (("float32 (tf32)", "fp32"), ("float16", "fp16"), ("bfloat16", "bf16"))
        for mode, text in modes.items()
    )
    text = _by_family(contests, "gpu", lines, bars=True)
    device = devices(contests.values()).get("gpu", "")
    fused = select(
        contests,
        device,
        tuple(
            (f"{dtype}, {ids}", DOT, f"lookup_b65536_f27_d128_{hot}{short}", FORWARD, "")
            for ids, hot in (("one id each", ""), ("four ids each", "hot4_"))
            for dtype, short in (("float32", "fp32"), ("bfloat16", "bf16"))
        ),
    )
    if fused_lines := _one_op_and_two(fused):
        text += "\n\nFused with the lookups of 26 tables, through TensorFlow, forward:\n\n" + fused_lines
    return text


def _one_op_and_two(lines: list[tuple[str, Contest]]) -> str:
    """Lookups and products by one op and by two, a call each and, where they were measured, several steps a call."""
    pairs = {"": ("ours in TensorFlow", "ours, two ops")}
    steps = ("ours, 8 steps a call", "ours, two ops, 8 steps a call")
    if any(name in each.rows for _, each in lines for name in steps):
        pairs[", 8 steps a call"] = steps
    body = []
    for label, each in lines:
        line = [label]
        for names in pairs.values():
            one, two = (each.rows.get(name) for name in names)
            line += [milliseconds(one), milliseconds(two), times(two.p50_ms / one.p50_ms) if one and two else "-"]
        if set(line[1:]) != {"-"}:
            body.append(line)
    head = [f"{column}{how}" for how in pairs for column in ("one op", "two ops", "times")]
    return table(["", *head], body) if body else ""


def inbatch_softmax(contests: Contests) -> str:
    """inbatch_softmax on a GPU: time, and memory beyond what was held."""
    lines = tuple(
        (
            f"B{batch} {'float32 (tf32)' if short == 'fp32' else 'bfloat16'}",
            SOFTMAX,
            f"b{batch}_d128_{short}",
            FULL,
            "",
        )
        for batch in (8_192, 16_384, 32_768, 65_536, 262_144)
        for short in ("fp32", "bf16")
    )
    return _by_family(contests, "gpu", lines, bars=True, memory=True, share=False)


def models(contests: Contests) -> str:
    """Training steps of whole models on each device."""
    parts = []
    for device in devices(contests.values()).values():
        chosen = [
            (f"`{key[1]}`", each)
            for key, each in sorted(contests.items())
            if key[0] in ("dlrm", "two_tower") and key[4] == device and each.ours
        ]
        if chosen:
            names = [name for name in _names(chosen) if name not in ("ours, two ops", "ours in TensorFlow")]
            body = [
                [
                    label,
                    milliseconds(each.rows.get("ours in TensorFlow")),
                    number(examples_a_second(each.ours)),
                    *(milliseconds(each.rows.get(name)) for name in names),
                ]
                for label, each in chosen
            ]
            parts.append(f"{provenance(each for _, each in chosen)} Steps in ms.")
            parts.append(table(["case", "ours", "examples a second, best", *names], body))
    return "\n\n".join(parts) or "No rows yet."


def serving(contests: Contests) -> str:
    """Answers of DLRM on each device: exported, portable, called; beside Keras' own layers."""
    lines = tuple(
        (
            f"{batch:,} {'row' if batch == 1 else 'rows'}, {text}",
            "serving",
            f"serving_cap100k_b{batch}_{hot}hot",
            FORWARD,
            "",
        )
        for hot, text in (("one", "an id a feature"), ("multi", "MLPerf's lists"))
        for batch in (1, 64, 1024, 8192)
    )
    called = {"ours in TensorFlow": "ours", "Keras": "Keras", "ours, called": "ours, not exported"}
    parts = []
    for device in devices(contests.values()).values():
        if chosen := select(contests, device, lines):
            names = _names(chosen)
            head = [
                "",
                *(called.get(name, name.replace("called", "not exported")) for name in names),
                "ours, rows a second",
            ]
            body = [
                [
                    label,
                    *(milliseconds(each.rows.get(name)) for name in names),
                    number(examples_a_second(each.ours)),
                ]
                for label, each in chosen
            ]
            parts += [f"{provenance(each for _, each in chosen)} Medians in ms.", table(head, body)]
    return "\n\n".join(parts) or "No rows yet."


def serving_http(contests: Contests) -> str:
    """Requests over HTTP under load."""
    chosen = [each for key, each in sorted(contests.items()) if key[0] == "serving_http" and each.rows]
    body = []
    for each in chosen:
        for name, row in each.rows.items():
            config = json.loads(row.config)
            body.append(
                [
                    f"{config['batch']}",
                    f"{config['connections']}",
                    "portable" if "portable" in name else "with our ops",
                    milliseconds(row),
                    number(config["p99_ms"]),
                    number(config["requests_a_second"]),
                    number(examples_a_second(row)),
                ]
            )
    head = ["rows a request", "connections", "export", "p50 ms", "p99 ms", "requests a second", "rows a second"]
    return (
        f"{provenance(chosen)}\n\n{table(head, sorted(body, key=lambda line: (int(line[0]), int(line[1]))))}"
        if body
        else "No rows yet."
    )


def _names(chosen: list[tuple[str, Contest]]) -> list[str]:
    return list(dict.fromkeys(name for _, each in chosen for name in each.rows))


def _by_family(
    contests: Contests, kind: str, lines: tuple[Line, ...], bars: bool = False, memory: bool = False, share: bool = True
) -> str:
    chosen = select(contests, devices(contests.values()).get(kind, ""), lines)
    if not chosen:
        return "No rows yet."
    names = [name for name in _names(chosen) if name != "ours, two ops"]
    head = ["", *names, *(["share"] if share else []), *([BAR] if bars else [])]
    body = []
    for label, each in chosen:
        line = [label]
        for name in names:
            row = each.rows.get(name)
            held = f" ({row.peak_extra_mb / 1024:.2f})" if memory and row and row.peak_extra_mb > 0 else ""
            line.append(milliseconds(row) + held)
        if share:
            line.append(f"{each.rows.get('ours', each.ours).share_of_copy:.2f}")
        body.append([*line, BARS.get((each.case, each.mode, each.optimizer), "none")] if bars else line)
    unit = "ms, in brackets GiB beyond what was held" if memory else "ms"
    return f"{provenance(each for _, each in chosen)} Medians in {unit}.\n\n{table(head, body)}"


REGIONS: dict[str, Callable[[Contests], str]] = {
    "how-fast": how_fast,
    "slower": slower,
    "where-it-stands": where_it_stands,
    "cpu": cpu,
    "dot-interaction": dot_interaction,
    "inbatch-softmax": inbatch_softmax,
    "models": models,
    "serving": serving,
    "serving-http": serving_http,
}
_MARKED = re.compile(r"^(<!-- benchmarks:([a-z-]+) -->\n)(?:.*?\n)??(<!-- /benchmarks -->)$", re.DOTALL | re.MULTILINE)
_BEGIN = re.compile(r"^<!-- benchmarks:", re.MULTILINE)  # elsewhere in a line it is only mentioned


def has_regions(text: str) -> bool:
    """Whether a page has any."""
    return _BEGIN.search(text) is not None


def fill(text: str, contests: Contests, page: str, make: dict[str, Callable[[Contests], str]] = REGIONS) -> str:
    """A page with its regions written anew.

    Args:
        text: of the page.
        contests: all that was measured.
        page: its name, for messages.
        make: a region's text by its name.

    Raises:
        ValueError: if a region has an unknown name, or no end.
    """
    unknown = [name for _, name, _ in _MARKED.findall(text) if name not in make]
    if unknown:
        raise ValueError(f"regions of {page} must be of {', '.join(make)}. Received: {', '.join(unknown)}")
    if len(_BEGIN.findall(text)) != len(_MARKED.findall(text)):
        raise ValueError(f"each <!-- benchmarks:NAME --> of {page} must have its <!-- /benchmarks --> after it")
    return _MARKED.sub(lambda match: f"{match[1]}\n{make[match[2]](contests)}\n\n{match[3]}", text)
