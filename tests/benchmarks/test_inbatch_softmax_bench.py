"""The benchmark's problem: what it expects of repeated rows is what the reference says of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ops import inbatch_softmax_problem as problems
from benchmarks.ops.inbatch_softmax_torch import CutCrossEntropy, Liger
from merlin_models.ops import inbatch_softmax_reference


@pytest.mark.parametrize("plain", [False, True])
def test_expected(monkeypatch, plain):
    monkeypatch.setattr(problems, "BLOCK", 16)
    problem = problems.Case("case", 48, 8, plain=plain).build()
    loss, *gradients = problem.expected()
    outputs, grads = inbatch_softmax_reference(
        problem.queries(),
        problem.candidates(),
        np.full(48, 1.0 / 48),
        temperature=problems.TEMPERATURE,
        candidate_ids=problem.ids(),
        candidate_log_q=problem.log_q(),
    )
    np.testing.assert_allclose(loss, outputs["loss"][:16], rtol=1e-9, atol=1e-12)
    both = grads["candidates"] + grads["positives"]
    for actual, expected in zip(gradients, (grads["queries"], both), strict=True):
        np.testing.assert_allclose(actual, expected[:16], rtol=1e-9, atol=1e-12)


def test_batches_are_whole_blocks():
    with pytest.raises(ValueError, match=r"batch must be at most 2048, or a multiple of it. Received: 3000"):
        problems.Case("case", 3000, 8).build()


@pytest.mark.parametrize(
    ("peer", "dtype", "mode", "word"),
    [
        (CutCrossEntropy, "float32", "full", "2-byte vectors"),
        (CutCrossEntropy, "float32", "forward", ""),
        (CutCrossEntropy, "bfloat16", "full", ""),
        (Liger, "float32", "full", ""),
        (Liger, "bfloat16", "forward", "in the forward pass"),
    ],
)
def test_losses_for_language_models_say_what_they_cannot(peer, dtype, mode, word):
    case = problems.Case("case", 64, 16, dtype=dtype, plain=True)
    reason = peer().unsupported(case, "cuda", mode, "")
    assert word in reason
    assert bool(word) == bool(reason)
