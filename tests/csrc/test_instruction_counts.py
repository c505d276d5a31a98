"""The CPU kernels take as many instructions as the committed figures say, within 5 %."""

from __future__ import annotations

import re

import pytest

from benchmarks import instruction_counts as counted


@pytest.fixture(scope="module")
def counts() -> dict[str, int]:
    try:
        return counted.count(counted.installed_kernels())
    except counted.Unavailable as error:
        pytest.skip(f"instructions cannot be counted here: {error}")


def test_kernels_take_the_committed_instructions(counts):
    figures = counted.figures_of(counted.compiler())
    if figures is None:
        pytest.skip(
            f"there are no figures for kernels built by {counted.compiler()}: make instruction-counts writes them"
        )
    assert not counted.differences(counts, figures), "if that is intended, run make instruction-counts"


def test_all_kernels_are_counted(counts):
    names = re.findall(r"^  count_(\w+)\(", counted.SOURCE.read_text(), re.MULTILINE)
    assert sorted(counts) == sorted(names)
    assert min(counts.values()) > 100_000


def test_what_differs_is_named():
    assert counted.differences({"a": 1_049, "b": 951}, {"a": 1_000, "b": 1_000}) == []
    assert counted.differences({"a": 1_100, "b": 900, "c": 1}, {"a": 1_000, "b": 1_000, "d": 2}) == [
        "a: 1,100 instructions, +10.0 % of 1,000",
        "b: 900 instructions, -10.0 % of 1,000",
        "c: 1, the figure is missing",
        "d: not counted, the figure is 2",
    ]


def test_without_valgrind_the_reason_is_told(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert counted.main([]) == 1
    assert "instructions cannot be counted here: valgrind is not on PATH" in capsys.readouterr().err


def test_kernels_that_do_not_link_are_an_error(tmp_path):
    try:
        counted.count(tmp_path / "none.so")
    except counted.Unavailable as error:
        pytest.skip(f"instructions cannot be counted here: {error}")
    except RuntimeError as error:
        failed = str(error)
    else:
        failed = "nothing"
    assert "g++ failed" in failed
