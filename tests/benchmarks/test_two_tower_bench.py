"""The two-tower benchmark: providers have the loss of the reference, and one that has another is refused."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.harness import NotEqual, Provider, load_provider
from benchmarks.models import bench_two_tower as bench

CASE = bench.CASES["two_tower_ml1m_b256"]


class Told(Provider):
    """A provider that reports the given losses."""

    def __init__(self, *losses):
        self._losses = iter(losses)

    def loss_of_step(self):
        return next(self._losses)


@pytest.mark.parametrize("name", ["merlin_tf", "keras"])
def test_providers_have_the_loss_of_the_reference(name):
    provider, problem = load_provider(bench, name), CASE.build()
    provider.setup(problem, "cpu", "update", "adam")
    assert bench.check(provider, problem, "update", "adam") < 1e-5


def test_wrong_losses_are_refused():
    problem = CASE.build()
    assert bench.check(Told(problem.loss, problem.loss - 1), problem, "update", "adam") == 0
    with pytest.raises(NotEqual, match="the loss is"):
        bench.check(Told(problem.loss * 1.01, 0.0), problem, "update", "adam")
    with pytest.raises(NotEqual, match="steps must lower the loss"):
        bench.check(Told(problem.loss, problem.loss), problem, "update", "adam")


def test_a_rounded_loss_may_take_steps_to_move():
    problem = dataclasses.replace(CASE, dtype="bfloat16").build()
    loss = problem.loss
    assert bench.check(Told(loss, loss, loss - 1), problem, "update", "adam") == 0
    for losses in ([loss] * 100, [loss, loss, loss + 1]):
        with pytest.raises(NotEqual, match="steps must lower the loss"):
            bench.check(Told(*losses), problem, "update", "adam")
