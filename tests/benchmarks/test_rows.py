"""The row schema: percentiles, CSV files, ratios."""

from __future__ import annotations

import math

import pytest

from benchmarks.rows import FIELDS, Row, print_rows, read_csv, set_ratios, summarize, write_csv


def _row(provider, p50, status="ok", **options):
    options = {"mode": "forward", "optimizer": "", "device": "d", **options}
    return Row(op="o", case="c", provider=provider, status=status, p50_ms=p50, **options)


def test_percentiles_by_hand():
    assert summarize([5.0, 1.0, 2.0, 4.0, 3.0]) == {"p50_ms": 3.0, "p20_ms": 1.8, "p80_ms": 4.2, "samples": 5}


@pytest.mark.parametrize("times", [[], [1.0, math.nan], [1.0, 0.0]])
def test_percentiles_need_positive_times(times):
    with pytest.raises(ValueError, match="milliseconds must be positive numbers"):
        summarize(times)


def test_rows_survive_the_file(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    row = _row("a", 1.25, samples=7, config='{"a": [1, "b,c"]}', bytes_compulsory=10**12)
    write_csv(path, [row])
    write_csv(path, [_row("b", math.nan, status="missing", reason="no b, sorry")])
    back = read_csv(path)
    assert path.read_text().splitlines()[0] == ",".join(FIELDS)
    assert back[0].config == row.config
    assert (back[0].p50_ms, back[0].samples, back[0].bytes_compulsory) == (1.25, 7, 10**12)
    assert (back[1].status, back[1].reason, math.isnan(back[1].p50_ms)) == ("missing", "no b, sorry", True)


def test_a_file_with_other_columns_is_left_alone(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("op,ms\n")
    with pytest.raises(ValueError, match="must have the columns"):
        write_csv(path, [_row("a", 1.0)])
    assert path.read_text() == "op,ms\n"


def test_ratio_is_to_ours_of_the_same_kind():
    rows = [_row("merlin_native", 2.0), _row("merlin_tf", 4.0), _row("torch", 6.0), _row("tf_lookup", 6.0)]
    rows.append(_row("torch", 6.0, mode="other"))
    rows.append(_row("fbgemm", math.nan, status="refused"))
    set_ratios(rows)
    assert [row.ratio_to_ours for row in rows[:4]] == [1.0, 1.0, 3.0, 1.5]
    assert all(math.isnan(row.ratio_to_ours) for row in rows[4:])


def test_the_table_shows_numbers_and_reasons(capsys):
    print_rows([_row("fast", 1.5), _row("gone", math.nan, status="missing", reason="not installed")])
    shown = capsys.readouterr().out
    assert "1.500" in shown
    assert "gone: missing: not installed" in shown
