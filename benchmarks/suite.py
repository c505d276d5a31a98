"""What ``python -m benchmarks`` runs: for each part the op, its cases on a device, its modes."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from typing import Any

from benchmarks.harness import load_provider

QUICK_SECONDS = 0.02
SCALED_SECONDS = 0.4


@dataclasses.dataclass(frozen=True)
class Part:
    """A benchmark by the name that ``--only`` takes.

    Attributes:
        module: that describes the op.
        cases: on a device, names and groups of cases; no entry where it is not measured.
        modes: separated by commas.
        optimizers: on a device, for the mode update.
        seconds: of timing for a provider and case, where not the command's.
        quick: cases for ``--quick``.
        providers: of these alone, by name; empty for all. What is compiled anew for each size takes too long for curves.
    """

    module: str
    cases: dict[str, str]
    modes: str
    optimizers: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    quick: str = "smoke"
    providers: tuple[str, ...] = ()

    @property
    def op(self) -> str:
        """As ``benchmarks.run`` names it."""
        return self.module.rsplit("bench_", 1)[1]


_EMBEDDING_BAG, _DOT, _SOFTMAX = (
    f"benchmarks.ops.bench_{op}" for op in ("embedding_bag", "dot_interaction", "inbatch_softmax")
)
_ONE_OPTIMIZER = {"cpu": "adagrad", "cuda": "adagrad"}
_SCALED_BAGS = "scale_batch,scale_rows,scale_hotness,scale_dim"
PARTS = {
    "embedding_bag": Part(
        _EMBEDDING_BAG,
        {"cpu": "cpu", "cuda": "cuda"},
        "forward,update",
        optimizers={"cpu": "adagrad,rowwise_adagrad,adam", "cuda": "sgd,adagrad,rowwise_adagrad,adam"},
        quick="smoke_ragged,smoke_bf16",
    ),
    "dot_interaction": Part(_DOT, {"cpu": "cpu", "cuda": "cuda,many"}, "forward,full"),
    "lookup_interaction": Part(_DOT, {"cpu": "lookup_cpu", "cuda": "lookup"}, "forward,full", quick="smoke_lookup"),
    "inbatch_softmax": Part(_SOFTMAX, {"cpu": "cpu", "cuda": "bars,plain,large"}, "forward,full"),
    "loader": Part("benchmarks.loader.bench_loader", {"cpu": "cpu", "cuda": "cuda"}, "forward"),
    "dlrm": Part(
        "benchmarks.models.bench_dlrm",
        {"cpu": "cpu", "cuda": "cuda,multi"},
        "update",
        _ONE_OPTIMIZER,
        quick="dlrm_cap1k_b64_onehot_fp32,dlrm_cap1k_b64_multihot_bf16",
    ),
    "two_tower": Part(
        "benchmarks.models.bench_two_tower", {"cpu": "cpu", "cuda": "cuda"}, "update", {"cpu": "adam", "cuda": "adam"}
    ),
    "serving": Part("benchmarks.models.bench_serving", {"cpu": "cpu", "cuda": "cuda"}, "forward"),
    "serving_http": Part("benchmarks.models.bench_serving_http", {"cpu": "cpu"}, "forward", seconds=5.0),
    "embedding_bag_scaling": Part(
        _EMBEDDING_BAG,
        {"cpu": _SCALED_BAGS, "cuda": _SCALED_BAGS},
        "update",
        _ONE_OPTIMIZER,
        SCALED_SECONDS,
        "smoke_scale",
        ("merlin_native", "merlin_native_graph", "merlin_tf", "torch", "torch_graph", "fbgemm", "tf_lookup", "keras"),
    ),
    "dot_interaction_scaling": Part(
        _DOT,
        {"cpu": "scale_batch,scale_dim", "cuda": "scale_batch,scale_dim"},
        "full",
        seconds=SCALED_SECONDS,
        quick="smoke_scale",
        providers=("merlin_native", "merlin_tf", "torch", "tf", "tf_xla", "keras_rs"),
    ),
    "inbatch_softmax_scaling": Part(
        _SOFTMAX,
        {"cpu": "scale_batch,scale_dim,scale_catalogue", "cuda": "scale_batch,scale_dim,scale_catalogue"},
        "full",
        seconds=SCALED_SECONDS,
        quick="smoke_scale",
        providers=("merlin_native", "merlin_native_graph", "merlin_tf", "torch", "tf", "tf_xla"),
    ),
}


def commands(
    names: list[str], device: str, quick: bool, seconds: float, out: str, dtypes: str = ""
) -> dict[str, list[str]]:
    """Arguments of ``benchmarks.run`` by a name for each process: on a GPU one for what PyTorch drives, one for TensorFlow.

    Args:
        names: of parts, in the order to run them.
        device: "cpu" or "cuda".
        quick: small cases and next to no time for each: shows that everything runs.
        seconds: of timing for a provider and case.
        out: CSV file.
        dtypes: of cases, separated by commas; empty for all.

    Returns:
        Empty lists of arguments never occur: a part without cases on the device has no process.
    """
    processes: dict[str, list[str]] = {}
    for name in names:
        part = PARTS[name]
        if device not in part.cases:
            continue
        providers = _providers(part)
        for runtime in ("torch", "tensorflow") if device == "cuda" else ("torch,tensorflow",):
            chosen = [each for each, drives in providers.items() if drives in runtime.split(",")]
            if not chosen:
                continue
            optimizers = list(filter(None, part.optimizers.get(device, "").split(",")))
            arguments = {
                "--device": device,
                "--cases": part.quick if quick else part.cases[device],
                "--mode": part.modes,
                "--optimizers": ",".join(optimizers[:1] if quick else optimizers),
                "--providers": ",".join(chosen),
                "--seconds": str(QUICK_SECONDS if quick else part.seconds or seconds),
                "--dtypes": dtypes,
                "--out": out,
            }
            given = [(flag, value) for flag, value in arguments.items() if value]
            label = f"{name} (@{runtime})" if device == "cuda" else name
            # Tables of several cases do not fit side by side.
            apart = ["--apart"] if device == "cpu" and not quick else []
            processes[label] = [part.op, *itertools.chain.from_iterable(given), *apart]
    return processes


def _providers(part: Part) -> dict[str, str]:
    """Of a part: what drives a GPU, by the provider's name."""
    op: Any = importlib.import_module(part.module)
    return {name: load_provider(op, name).runtime for name in part.providers or op.PROVIDERS}
