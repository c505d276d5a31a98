"""From rows to contests: on one device, case and mode, each provider's time in one run, by the names that readers see."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

from benchmarks.rows import Row, read_csv

# What a table or a picture shows under one name: of these providers the fastest.
FAMILIES = {
    "ours": (
        "merlin_native",
        "merlin_native_graph",
        "merlin_native_dense",
        "merlin_native_dense_graph",
        "merlin_native_cupy",
    ),
    "ours in TensorFlow": ("merlin_tf", "merlin_tf_dense"),
    "ours, XLA around it": ("merlin_tf_clustered",),
    "ours, 8 steps a call": ("merlin_tf_loop",),
    "ours, two ops": ("merlin_tf_two_ops",),
    "ours, the kernels of two ops": ("merlin_native_two_ops", "merlin_native_two_ops_graph"),
    "ours, two ops, 8 steps a call": ("merlin_tf_two_ops_loop",),
    "ours, portable": ("merlin_tf_portable",),
    "ours, called": ("merlin_tf_call",),
    "ours, float32 exact": ("merlin_native_float32",),
    "FBGEMM TBE": ("fbgemm", "fbgemm_v2"),
    "torch": ("torch", "torch_graph"),
    "torch.compile": ("torch_compile",),
    "torch, dense gradients": ("torch_dense",),
    "FlexAttention": ("torch_flex_attention",),
    "cut-cross-entropy": ("cut_cross_entropy",),
    "Liger": ("liger",),
    "TensorFlow": ("tf", "tf_lookup", "tf_segment"),
    "TensorFlow eager": ("tf_eager", "tf_lookup_eager"),
    "TensorFlow, XLA": ("tf_xla",),
    "Keras": ("keras",),
    "Keras, XLA": ("keras_xla",),
    "Keras, called": ("keras_call",),
    "keras-rs": ("keras_rs",),
    "Merlin Models 23.12": ("merlin_models_23.12",),
    "merlin-dataloader": ("merlin_dataloader",),
    "gather of the rows": ("gather_floor",),
}
_FAMILY = {provider: family for family, providers in FAMILIES.items() for provider in providers}
OURS = tuple(family for family in FAMILIES if family.startswith("ours"))
FASTEST_OF_OURS = ("ours", "ours in TensorFlow", "ours, XLA around it")
OF_TENSORFLOW = (
    "TensorFlow",
    "TensorFlow eager",
    "TensorFlow, XLA",
    "Keras",
    "Keras, XLA",
    "keras-rs",
    "Merlin Models 23.12",
)
NO_PEERS = (*OURS, "gather of the rows")


@dataclasses.dataclass
class Contest:
    """Attributes: rows: those with a time, by family, the fastest of each. reasons: why others have none. providers: all
    rows with a time."""

    op: str
    case: str
    mode: str
    optimizer: str
    device: str
    rows: dict[str, Row]
    reasons: dict[str, str]
    providers: dict[str, Row]

    @property
    def ours(self) -> Row | None:
        """Our fastest."""
        return min((self.rows[name] for name in FASTEST_OF_OURS if name in self.rows), key=_time, default=None)

    @property
    def best_peer(self) -> tuple[str, Row] | None:
        """The fastest of the others, with its name."""
        return self.best_of(name for name in self.rows if name not in NO_PEERS)

    def best_of(self, families: Iterable[str]) -> tuple[str, Row] | None:
        """The fastest of some families, with its name."""
        pairs = [(name, self.rows[name]) for name in families if name in self.rows]
        return min(pairs, key=lambda pair: pair[1].p50_ms, default=None)

    def fastest(self, *providers: str) -> Row | None:
        """Of some providers."""
        return min((self.providers[name] for name in providers if name in self.providers), key=_time, default=None)


Key = tuple[str, str, str, str, str]


def _time(row: Row) -> float:
    return row.p50_ms


def family_of(provider: str) -> str:
    """The name under which a provider is shown; its own where there is none."""
    return _FAMILY.get(provider, provider)


def load(files: Iterable[pathlib.Path]) -> dict[Key, Contest]:
    """Contests of all files, by op, case, mode, optimizer and device.

    Rows are compared within one file only, which is what a run on a machine appends to: that with the newest of our rows, or,
    without any, that with the newest row. Of a provider that a file has several times the last row counts.
    """
    candidates: dict[Key, dict[str, list[Row]]] = {}
    for file in sorted(files):
        for row in read_csv(file):
            key = (row.op, row.case, row.mode, row.optimizer, row.device)
            candidates.setdefault(key, {}).setdefault(file.name, []).append(row)
    contests = {}
    for key, by_file in candidates.items():
        chosen = max(by_file, key=lambda name: (*_newest(by_file[name]), name))
        contests[key] = _contest(key, by_file[chosen])
    return contests


def _newest(rows: list[Row]) -> tuple[str, str]:
    ours = [row.timestamp for row in rows if row.status == "ok" and family_of(row.provider) in FASTEST_OF_OURS]
    return max(ours, default=""), max(row.timestamp for row in rows)


def _contest(key: Key, rows: list[Row]) -> Contest:
    last = {row.provider: row for row in sorted(rows, key=lambda row: row.timestamp)}
    times: dict[str, Row] = {}
    reasons: dict[str, str] = {}
    for row in last.values():
        family = family_of(row.provider)
        if row.status != "ok":
            reasons.setdefault(family, f"{row.status}: {row.reason}")
        elif _is_withdrawn(row):
            reasons.setdefault(family, "withdrawn: its graph had pruned the forward pass")
        elif family not in times or row.p50_ms < times[family].p50_ms:
            times[family] = row
    order = list(FAMILIES)
    times = dict(sorted(times.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)))
    without = {name: why for name, why in reasons.items() if name not in times}
    return Contest(
        *key,
        times,
        without,
        {row.provider: row for row in last.values() if row.status == "ok" and not _is_withdrawn(row)},
    )


def _is_withdrawn(row: Row) -> bool:
    """Rows of dot_interaction whose graph functions returned the gradient alone, and so did not compute the products."""
    through_tf = row.provider.startswith(("tf", "keras", "merlin_tf"))
    return (
        row.op == "dot_interaction" and row.mode == "forward_backward" and through_tf and row.timestamp < "2026-11-28"
    )


def devices(contests: Iterable[Contest]) -> dict[str, str]:
    """For "cpu" and "gpu" the device with the newest row; an entry is missing where no row is of its kind."""
    newest: dict[str, tuple[str, str]] = {}
    for contest in contests:
        stamps = [row.timestamp for row in contest.rows.values()]
        if stamps:
            kind = kind_of(contest.device)
            newest[kind] = max(newest.get(kind, ("", "")), (max(stamps), contest.device))
    return {kind: device for kind, (_, device) in sorted(newest.items())}


def kind_of(device: str) -> str:
    """ "cpu" or "gpu", by a row's name of its device."""
    return "cpu" if device.endswith("threads") or device.endswith("thread") else "gpu"
