"""Where others are faster: all cases of a device in which a peer takes less time than ours, and the reasons."""

from __future__ import annotations

import dataclasses

from benchmarks.report.contests import FASTEST_OF_OURS, NO_PEERS, OF_TENSORFLOW, Contest, Key, devices, kind_of
from benchmarks.report.tables import milliseconds, what
from benchmarks.rows import Row

# How ours is reached; of which of our families it is the fastest; whose times it is held against, None for all others'.
WAYS: tuple[tuple[str, tuple[str, ...], tuple[str, ...] | None], ...] = (
    ("", FASTEST_OF_OURS, None),
    ("in TensorFlow", ("ours in TensorFlow",), OF_TENSORFLOW),
    ("portable export", ("ours, portable",), OF_TENSORFLOW),
)

# Why, by the kind of device, the op, the mode and the way of :data:`WAYS`; without a way for all of them, with "" as
# the mode for all modes. Numbers are in the rows, never here.
_OF_THE_HOST = "a program of XLA's costs the host less than a graph with an op of ours"
REASONS: dict[tuple[str, ...], str] = {
    ("gpu", "dot_interaction", ""): "Bound by the host: the bare kernel takes a part of the call's time, and "
    f"{_OF_THE_HOST}.",
    (
        "gpu",
        "embedding_bag",
        "forward",
    ): "Level but for the last digit: both kernels wait for random reads of short rows. In "
    f"TensorFlow a call alone is bound by the host, and {_OF_THE_HOST}; eight steps in one call are not.",
    (
        "gpu",
        "inbatch_softmax",
        "forward",
    ): "Without log_q and ids, in bfloat16, FlexAttention's log-sum-exp has nothing to "
    "do to a score, while ours also ranks the positive among all candidates. With log_q and ids, or with the gradient, "
    "ours is faster.",
    ("gpu", "inbatch_softmax", "forward_backward"): "Small problems, bound by the host: the time hardly grows with the "
    f"catalogue, and {_OF_THE_HOST}.",
    ("gpu", "inbatch_softmax", "forward", "in TensorFlow"): "Bound by the host: the bare kernels take a part of the "
    f"call's time, and {_OF_THE_HOST}.",
    ("gpu", "two_tower", ""): "Small layers, launched one by one. With XLA around our ops "
    '(`jit_compile="autoclustering"`) the step is faster than that of Keras with XLA.',
    (
        "gpu",
        "serving",
        "",
    ): "Lists: our signatures take them at any length, as values and offsets, and check the offsets, for "
    "which they wait for the GPU. The model of Keras has inputs of a fixed length and nothing to check. The portable "
    "export waits several times, for what stock ops do on the host, and looks up and sums feature by feature.",
    (
        "cpu",
        "serving",
        "",
    ): "Our signatures take lists at any length, as values and offsets, and check them; the model of "
    "Keras has inputs of a fixed length. The portable export sums feature by feature with stock ops.",
}
UNEXPLAINED = "Not explained yet."


@dataclasses.dataclass(frozen=True)
class Loss:
    """One case in which a peer is faster. Attributes: way: how ours is reached, of :data:`WAYS`."""

    op: str
    case: str
    mode: str
    optimizer: str
    device: str
    way: str
    ours: Row
    peer: str
    theirs: Row

    @property
    def group(self) -> str:
        """What it is a case of, as readers call it."""
        return ", ".join(filter(None, (f"`{self.op}`", what(self.mode, self.optimizer), self.way)))

    @property
    def within_spread(self) -> bool:
        """Whether the two spans from the 20th to the 80th percentile overlap."""
        return self.theirs.p80_ms >= self.ours.p20_ms

    @property
    def reason(self) -> str | None:
        """Why, or None if nobody has said it."""
        kind = kind_of(self.device)
        keys = (kind, self.op, self.mode, self.way), (kind, self.op, self.mode), (kind, self.op, "")
        return next((REASONS[key] for key in keys if key in REASONS), None)


def losses(contests: dict[Key, Contest]) -> dict[str, list[Loss]]:
    """All cases in which a peer is faster, by device: of each kind the one measured last. A device without any is there,
    with an empty list."""
    found: dict[str, list[Loss]] = {device: [] for device in devices(contests.values()).values()}
    for key, contest in sorted(contests.items()):
        if contest.device in found:
            found[contest.device] += _losses_of(key, contest)
    return found


def _losses_of(key: Key, contest: Contest) -> list[Loss]:
    lost: list[Loss] = []
    for way, families, peers in WAYS:
        ours, theirs = (
            contest.best_of(families),
            contest.best_of(peers or (n for n in contest.rows if n not in NO_PEERS)),
        )
        named_before = ours is not None and any(loss.ours is ours[1] for loss in lost)
        if ours and theirs and theirs[1].p50_ms < ours[1].p50_ms and not named_before:
            lost.append(Loss(*key, way, ours[1], *theirs))
    return lost


def named(lost: list[Loss]) -> str:
    """A list of groups with their cases: ours, then the best peer's time and name; a sentence where there is none."""
    if not lost:
        return "No case was measured in which another is faster."
    lines = [f"- {group}: {_cases(of_group)}" for group, of_group in _groups(lost).items()]
    return "Slower than the best other, of all cases measured, ms of ours and in brackets of theirs:\n\n" + "\n".join(
        lines
    )


def explained(lost: list[Loss]) -> str:
    """The same by reasons, each above its groups."""
    if not lost:
        return named(lost)
    by_reason: dict[str, list[str]] = {}
    for group, of_group in _groups(lost).items():
        by_reason.setdefault(of_group[0].reason or UNEXPLAINED, []).append(f"- {group}: {_cases(of_group)}")
    return "\n\n".join(f"{reason}\n\n" + "\n".join(lines) for reason, lines in by_reason.items())


def unexplained(contests: dict[Key, Contest]) -> dict[str, list[str]]:
    """Groups of cases for which :data:`REASONS` has none, by device; a device without any is missing."""
    without = {
        device: list(dict.fromkeys(loss.group for loss in lost if loss.reason is None))
        for device, lost in losses(contests).items()
    }
    return {device: groups for device, groups in without.items() if groups}


def _groups(lost: list[Loss]) -> dict[str, list[Loss]]:
    groups: dict[str, list[Loss]] = {}
    for loss in sorted(lost, key=lambda each: each.way):  # the fastest of ours first
        groups.setdefault(loss.group, []).append(loss)
    return groups


def _cases(of_group: list[Loss]) -> str:
    return "; ".join(
        f"`{loss.case}` {milliseconds(loss.ours)} ({loss.peer} {milliseconds(loss.theirs)}"
        + (", within the spread)" if loss.within_spread else ")")
        for loss in of_group
    )
