"""The serving benchmark: our exports answer like the reference, and what does not is refused."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import NotEqual, Provider, load_provider
from benchmarks.models import bench_serving as bench
from benchmarks.models.dlrm_problem import predictions

CASE = bench.CASES["serving_cap1k_b64_multihot"]


class Told(Provider):
    """A provider that answers as it is told."""

    def __init__(self, answers):
        self.predictions = lambda: answers


@pytest.mark.parametrize("name", ["merlin_tf", "merlin_tf_portable", "merlin_tf_call"])
def test_ours_answer_like_the_reference(name):
    provider, problem = load_provider(bench, name), CASE.build()
    provider.setup(problem, "cpu", "forward", "")
    assert bench.check(provider, problem, "forward", "") < 1e-5


def test_wrong_answers_are_refused():
    problem = CASE.build()
    right = predictions(problem)
    assert right.shape == (64, 1)
    assert np.ptp(right) > 1e-3
    assert bench.check(Told(right), problem, "forward", "") == 0
    with pytest.raises(NotEqual, match=r"probabilities differ by 0\.01"):
        bench.check(Told(right + 0.01), problem, "forward", "")
    with pytest.raises(NotEqual, match="the shape"):
        bench.check(Told(right[:1]), problem, "forward", "")


def test_bytes_by_hand():
    problem = bench.CASES["serving_cap1k_b1_onehot"].build()
    assert bench.traffic(problem, "forward", "") == (26 * 4 * 8, 26 * 4 * 8)
