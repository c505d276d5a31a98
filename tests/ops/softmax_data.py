"""Random calls of inbatch_softmax with what they must give, and how far off a result may be."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from merlin_models.ops import inbatch_softmax_reference

# batch, candidates, dim, temperature
DTYPES = ["float32", "float16", "bfloat16"]
# What hypothesis draws for any call beside its sizes.
ANY_CALL = {
    "seed": st.integers(0, 2**32 - 1),
    "dim": st.integers(1, 40),
    "temperature": st.sampled_from([0.01, 0.07, 1.0, 10.0]),
    "ids": st.sampled_from(["different", "some", "equal"]),
    "dtype": st.sampled_from(DTYPES),
    "in_batch": st.booleans(),
}
SIZES = [
    (1, 1, 1, 1.0),
    (1, 2, 7, 0.07),
    (2, 2, 16, 10.0),
    (2, 33, 64, 0.01),
    (31, 31, 100, 0.07),
    (31, 129, 128, 0.05),
    (33, 33, 256, 1.0),
    (33, 1000, 7, 0.01),
    (129, 129, 1, 10.0),
    (129, 1000, 64, 0.2),
    (1, 1000, 100, 1.0),
    (1000, 1000, 16, 0.01),
    (1000, 1000, 128, 0.05),
    (129, 130, 512, 0.1),
]
ROUNDING = {"float32": 0.0, "float16": 2.0**-10, "bfloat16": 2.0**-7}  # of one result, and of a weight on a GPU


@dataclasses.dataclass
class SoftmaxCase:
    """Arrays of one call with positives of their own, and upstream gradients of its three results."""

    queries: np.ndarray
    positives: np.ndarray
    candidates: np.ndarray
    temperature: float
    positive_ids: np.ndarray
    candidate_ids: np.ndarray
    positive_log_q: np.ndarray | None
    candidate_log_q: np.ndarray | None
    grads: list[np.ndarray]

    @property
    def dtype(self) -> str:
        return self.queries.dtype.name

    def options(self) -> dict:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[3:-1]}

    def expected(self) -> tuple[dict, dict]:
        wide = [array.astype(np.float64) for array in (self.queries, self.candidates, self.positives)]
        return inbatch_softmax_reference(wide[0], wide[1], *self.grads, positives=wide[2], **self.options())


def random_case(
    rng, batch, candidates, dim, temperature, dtype="float32", ids="some", log_q=-12.0, in_batch=True, size=1.0
) -> SoftmaxCase:
    """Vectors of length ``size``; ids are "different", "some" of them equal, or all "equal"; log_q None for none."""

    def vectors(count: int) -> np.ndarray:
        x = rng.normal(size=(count, dim))
        x *= size / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
        return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)

    keys = vectors(candidates)
    high = {"different": 2**62, "some": max(2, candidates // 2), "equal": 1}[ids]
    key_ids = rng.integers(0, high, candidates)
    key_log_q = None if log_q is None else rng.uniform(log_q, 0.0, candidates).astype(np.float32)
    place = np.arange(batch) if in_batch else rng.integers(0, candidates, batch)
    return SoftmaxCase(
        vectors(batch),
        keys[place] if in_batch else vectors(batch),
        keys,
        temperature,
        key_ids[place],
        key_ids,
        None if log_q is None else key_log_q[place],
        key_log_q,
        [rng.normal(size=batch).astype(np.float32) for _ in range(3)],
    )


def assert_as_expected(case: SoftmaxCase, outputs: dict, grads: dict, *, tf32: bool = False, on_gpu: bool = False):
    """Compares with the reference, by what an error in each score, and then in each weight, can do to the results.

    Scores are sums of ``dim`` products; tensor cores cut them off where other units round. On a GPU weights of 2-byte
    types are rounded to their type.
    """
    expected, expected_grads = case.expected()
    q, k, p = (np.abs(array.astype(np.float64)) for array in (case.queries, case.candidates, case.positives))
    zero = np.zeros(1)
    key_log_q = zero if case.candidate_log_q is None else np.abs(case.candidate_log_q)
    own_log_q = zero if case.positive_log_q is None else np.abs(case.positive_log_q)
    unit = 2e-3 if tf32 else 2e-6 + 1.5e-8 * q.shape[1]
    in_scores = unit * q @ k.T / case.temperature + 2e-7 * key_log_q
    in_own = unit * (q * p).sum(1) / case.temperature + 2e-7 * own_log_q
    error = np.maximum(in_scores.max(axis=1), in_own)  # of a row's scores
    positive, log_sum = expected["positive_score"], expected["log_sum_exp"]
    for name, tolerance in {
        "loss": 2 * error * np.minimum(1.0, expected["loss"] + error) + 1e-6 * expected["loss"],
        "log_sum_exp": error + 1e-6 * np.abs(log_sum),
        "positive_score": in_own + 2e-7 * np.abs(positive),
    }.items():
        assert_within(outputs[name], expected[name], tolerance + 1e-30, name)
    same = case.positive_ids[:, np.newaxis] == case.candidate_ids
    scores = case.queries.astype(np.float64) @ case.candidates.astype(np.float64).T / case.temperature
    scores = np.where(same, -np.inf, scores - (zero if case.candidate_log_q is None else case.candidate_log_q))
    for sign, order in ((1, np.less_equal), (-1, np.greater_equal)):
        bound = (scores > (positive + sign * 2 * error)[:, np.newaxis]).sum(axis=1)
        assert order(bound, outputs["rank"]).all()

    a, b = np.abs(case.grads[0] + case.grads[1]), np.abs(case.grads[2] - case.grads[0])
    in_weight = unit + 1e-6 + (ROUNDING[case.dtype] if on_gpu else 0.0)
    weights = (
        a[:, np.newaxis] * np.exp(scores - log_sum[:, np.newaxis]) * (np.expm1(3 * error) + in_weight)[:, np.newaxis]
    )
    own = a * np.exp(positive - log_sum) * (np.expm1(3 * error) + in_weight) + 1e-6 * (a + b)
    tolerances = {
        "queries": (weights @ k + own[:, np.newaxis] * p) / case.temperature,
        "positives": own[:, np.newaxis] * q / case.temperature,
        "candidates": weights.T @ q / case.temperature,
        "positive_log_q": own,
        "candidate_log_q": weights.sum(axis=0),
    }
    tolerances["temperature"] = (q * tolerances["queries"]).sum() / case.temperature + 1e-6 * np.abs(
        expected_grads["temperature"]
    )
    for name, actual in grads.items():
        rounding = 0.0 if "log_q" in name or name == "temperature" else ROUNDING[case.dtype]
        floor = 1e-7 if case.dtype == "float16" else 1e-30
        wanted = expected_grads[name]
        assert_within(actual, wanted, tolerances[name] + rounding * np.abs(wanted) + floor, f"gradient of {name}")


def assert_within(actual, wanted, tolerance, name: str) -> None:
    error = np.abs(np.asarray(actual, np.float64) - wanted)
    worst = float(np.max(error / tolerance, initial=0.0))
    assert worst <= 1.0, f"{name}: {worst:.2g} times the tolerance"  # NaN is not
