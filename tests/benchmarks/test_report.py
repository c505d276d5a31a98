"""The report: which rows it compares, how it writes them, and that pages and pictures are what the rows say."""

from __future__ import annotations

import json
import math
import re

import pytest

from benchmarks.report import contests as chosen
from benchmarks.report import main, pictures, tables
from benchmarks.report.command import RESULTS, ROOT, warnings, write
from benchmarks.report.losses import losses, unexplained
from benchmarks.report.regions import REGIONS, fill
from benchmarks.rows import Row, read_csv, write_csv

CPU, GPU = "Some CPU, 2 threads", "NVIDIA Some"


def _row(provider, p50, case="mlperf26_400k_uniform", status="ok", **options):
    options = {"mode": "forward", "optimizer": "", "device": GPU, "timestamp": "2026-12-01T00:00:00", **options}
    row = Row(op=options.pop("op", "embedding_bag"), case=case, provider=provider, status=status, p50_ms=p50, **options)
    row.p20_ms, row.p80_ms, row.share_of_copy, row.config = 0.9 * p50, 1.1 * p50, 0.5, json.dumps({"batch": 100})
    row.commit, row.copy_gbps = "abc", 1000.0
    return row


def _load(tmp_path, **files):
    for name, rows in files.items():
        write_csv(tmp_path / f"{name}.csv", rows)
    return chosen.load(tmp_path.glob("*.csv"))


def test_pages_and_pictures_of_the_repository_are_what_the_rows_say(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_no_speed_stands_outside_of_what_is_generated():
    """But for the log of experiments, which says so at its head, and for what benchmarking.md sets the clocks to."""
    generated = r"<!-- benchmarks:[a-z-]+ -->\n.*?<!-- /benchmarks -->|^```.*?^```"
    units = r"\d ?(?:ms|us|GB/s|TFLOP/s)\b|\d (?:examples|rows|requests) a second"
    speed = rf"{units}|\d (?:times|x|%) (?:faster|slower|what|as fast)"
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        if page.parent.name == "benchmarks" or page.name == "benchmarking.md":
            continue
        text = page.read_text().split("## Logs of experiments")[0]
        by_hand = re.findall(speed, re.sub(generated, "", text, flags=re.DOTALL | re.MULTILINE))
        assert by_hand == [], page


def test_rows_are_compared_within_one_file_and_the_last_of_a_provider_counts(tmp_path):
    old = [_row("merlin_native", 5.0, timestamp="2026-11-01T00:00:00"), _row("torch", 1.0)]
    new = [_row("merlin_native", 9.0), _row("merlin_native", 3.0, timestamp="2026-12-02T00:00:00")]
    new += [
        _row("merlin_native_dense", 2.0),
        _row("fbgemm", 8.0),
        _row("fbgemm_v2", 4.0),
        _row("keras", math.nan, status="missing"),
    ]
    [contest] = _load(tmp_path, old=old, new=new).values()
    assert {name: row.p50_ms for name, row in contest.rows.items()} == {"ours": 2.0, "FBGEMM TBE": 4.0}
    assert contest.providers["merlin_native"].p50_ms == 3.0
    assert contest.best_peer[0] == "FBGEMM TBE"
    assert contest.reasons == {"Keras": "missing: "}
    assert tables.ratio_to_best_peer(contest) == 2.0


def test_gradients_without_their_forward_pass_are_withdrawn(tmp_path):
    rows = [
        _row(name, 1.0, op="dot_interaction", mode="forward_backward", timestamp="2026-11-25")
        for name in ("tf", "torch")
    ]
    [contest] = _load(tmp_path, rows=rows).values()
    assert list(contest.rows) == ["torch"]
    assert "withdrawn" in contest.reasons["TensorFlow"]


def test_files_without_the_newer_columns_are_read(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text("op,case,provider,mode,optimizer,status,p50_ms,samples\no,c,p,forward,,ok,1.5,7\n")
    [row] = read_csv(path)
    assert (row.p50_ms, row.samples) == (1.5, 7)
    assert math.isnan(row.gemm_float32_tflops)
    assert math.isnan(row.peak_process_mb)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.07604, "0.0760"), (1.234, "1.23"), (52.34, "52.3"), (5930323.0, "5,930,323"), (math.nan, "-")],
)
def test_numbers_have_three_digits(value, text):
    assert tables.number(value) == text


def test_where_we_are_slower_is_said(tmp_path):
    rows = [_row("merlin_native", 4.0), _row("fbgemm", 3.0), _row("merlin_tf", 5.0), _row("tf_xla", 10.0)]
    rows.append(_row("keras", 20.0))
    text = REGIONS["how-fast"](_load(tmp_path, rows=rows))
    assert (
        "| 26 tables, uniform ids: lookup | 4.00 | FBGEMM TBE 3.00 | 0.75 | 5.00 | TensorFlow, XLA 10.0 | 2.00 | 20.0 |"
        in text
    )
    assert "- `embedding_bag`, forward: `mlperf26_400k_uniform` 4.00 (FBGEMM TBE 3.00)\n" in text + "\n"


def test_cases_that_no_table_shows_are_named_where_we_are_slower(tmp_path):
    host = [_row("merlin_native", 1.0, "a", op="dot_interaction"), _row("merlin_tf", 3.0, "a", op="dot_interaction")]
    rows = [*host, _row("tf_xla", 2.5, "a", op="dot_interaction"), _row("torch", 2.0, "a", op="dot_interaction")]
    rows += [_row("merlin_tf", 3.0, "b", op="serving"), _row("merlin_tf_portable", 4.0, "b", op="serving")]
    rows += [_row("keras", 2.0, "b", op="serving"), _row("keras_call", 1.0, "b", op="serving")]
    rows += [_row("merlin_native", 1.0, "c"), _row("fbgemm", 0.9, "c"), _row("merlin_native", 9.0, "c", device=CPU)]
    lost = losses(_load(tmp_path, rows=rows))
    assert {
        device: [(each.case, each.way, each.peer, each.within_spread) for each in of] for device, of in lost.items()
    } == {
        CPU: [],
        GPU: [
            ("a", "in TensorFlow", "TensorFlow, XLA", True),
            ("c", "", "FBGEMM TBE", True),
            ("b", "", "Keras, called", False),
            ("b", "portable export", "Keras", False),
        ],
    }
    text = REGIONS["slower"](_load(tmp_path, more=[]))
    assert "- `dot_interaction`, forward, in TensorFlow: `a` 3.00 (TensorFlow, XLA 2.50, within the spread)" in text
    assert "which they wait for the GPU" in text
    assert text.endswith(f"On {CPU}:\n\nNo case was measured in which another is faster.")


def test_what_has_no_rows_and_no_reason_is_warned_of(tmp_path):
    device = {"device": CPU}
    rows = [_row("merlin_native", 1.0, "cpu_t4_1m", **device), _row("torch", 2.0, "cpu_t4_1m", **device)]
    rows += [
        _row("merlin_native", 1.0, "scale", op="new_op", **device),
        _row("torch", 0.5, "scale", op="new_op", **device),
    ]
    contests = _load(tmp_path, rows=rows)
    missing, reason = warnings(contests)
    assert missing.startswith(
        f"warning: no rows on {CPU} for these lines of README.md's table: 4 tables of 1,000,000 rows, Z"
    )
    assert "two towers, batch 4,096: step" in missing
    assert "4 tables of 1,000,000 rows: lookup;" not in missing
    assert reason == (
        f"warning: others are faster on {CPU}, and benchmarks/report/losses.py has no reason: `new_op`, forward"
    )
    assert "Not explained yet.\n\n- `new_op`, forward: `scale` 1.00 (torch 0.500)" in REGIONS["slower"](contests)
    assert "Not measured on this device: 4 tables of 1,000,000 rows, Zipf's ids: lookup; " in REGIONS["how-fast"](
        contests
    )
    assert warnings({}) == []


def test_all_cases_of_the_repository_in_which_others_are_faster_have_a_reason():
    assert unexplained(chosen.load(RESULTS.glob("*.csv"))) == {}


def test_all_regions_can_be_made_without_rows():
    assert {make({}) for make in REGIONS.values()} == {"No rows yet."}


def _fused(tmp_path, **rows):
    by_case = [
        _row(provider, p50, op="dot_interaction", case=f"lookup_b65536_f27_d128_{short}")
        for short, of_case in rows.items()
        for provider, p50 in of_case.items()
    ]
    lookups = _row("merlin_native", 1.0, op="dot_interaction", case="b65536_f27_d128_fp32")
    return REGIONS["dot-interaction"](_load(tmp_path, fused=[*by_case, lookups])).split("forward:\n\n")[1]


def test_lookups_fused_with_products_are_shown_with_and_without_loops(tmp_path):
    calls = {"merlin_tf": 0.4, "merlin_tf_two_ops": 0.8}
    assert _fused(tmp_path, fp32=calls) == (
        "|  | one op | two ops | times |\n| --- | --- | --- | --- |\n| float32, one id each | 0.400 | 0.800 | 2.00 |"
    )
    loops = {"merlin_tf_loop": 0.25, "merlin_tf_two_ops_loop": 0.75}
    head, _, *body = _fused(tmp_path, fp32=calls | loops, bf16=calls).splitlines()
    assert head == (
        "|  | one op | two ops | times | one op, 8 steps a call | two ops, 8 steps a call | times, 8 steps a call |"
    )
    assert body == [
        "| float32, one id each | 0.400 | 0.800 | 2.00 | 0.250 | 0.750 | 3.00 |",
        "| bfloat16, one id each | 0.400 | 0.800 | 2.00 | - | - | - |",
    ]


def test_regions_are_filled_and_the_rest_of_a_page_stays():
    page = "a `<!-- benchmarks:NAME -->`\n<!-- benchmarks:x -->\n<!-- /benchmarks -->\nb\n"
    page += "<!-- benchmarks:y -->\n\nold\n\n<!-- /benchmarks -->\nc\n"
    made = fill(page, {}, "page", {"x": lambda contests: "X", "y": lambda contests: "Y"})
    assert made == page.replace("x -->\n", "x -->\n\nX\n\n").replace("old", "Y")
    assert fill(made, {}, "page", {"x": lambda contests: "X", "y": lambda contests: "Y"}) == made


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- benchmarks:z -->\n<!-- /benchmarks -->", "regions of page must be of x. Received: z"),
        ("<!-- benchmarks:x -->\n", "must have its <!-- /benchmarks --> after it"),
    ],
)
def test_bad_regions_are_refused(page, message):
    with pytest.raises(ValueError, match=message):
        fill(page, {}, "page", {"x": lambda contests: "X"})


def _scaled(ms_of_keras):
    rows = [
        _row("merlin_tf", 1.0, case=f"scale_rows_{n}", mode="forward_backward_update", optimizer="adagrad")
        for n in (10, 1000)
    ]
    rows += [
        _row("keras", ms, case=f"scale_rows_{n}", mode="forward_backward_update", optimizer="adagrad")
        for n, ms in zip((10, 1000), ms_of_keras, strict=True)
    ]
    bars = [_row("merlin_native", 1.0), _row("fbgemm", 2.0), _row("torch", 300.0), _row("torch", 3.0, device=CPU)]
    return rows + bars


def test_what_is_stale_is_found_and_written_anew(tmp_path):
    page, csv, out = tmp_path / "page.md", tmp_path / "rows.csv", tmp_path / "out"
    page.write_text(
        "<!-- benchmarks:how-fast -->\n<!-- /benchmarks -->\n<!-- benchmarks:pictures -->\n<!-- /benchmarks -->\n"
    )
    write_csv(csv, _scaled((1.0, 50.0)))
    names = {"index.md", "nvidia-some.md", "some-cpu-2-threads.md", "bars-gpu.png", "curves-gpu-tables.png"}
    assert len(write([csv], out, [page], check=True)) == len(names) + 1
    assert not out.exists()
    write([csv], out, [page], check=False)
    assert {path.name for path in out.iterdir()} == names
    assert "](out/curves-gpu-tables.png)" in page.read_text()
    assert write([csv], out, [page], check=True) == []

    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert 2_000 < path.stat().st_size < 100_000
    page.write_text(page.read_text().replace("1.00", "0.99"))
    (out / "left.png").write_bytes(b"")
    assert [line.split("/")[-1] for line in write([csv], out, [page], check=True)] == [
        "page.md",
        "left.png (nothing makes it)",
    ]

    csv.unlink()
    write_csv(csv, _scaled((1.0, 60.0)))  # a curve alone moves
    write([csv], out, [page], check=False)
    assert write([csv], out, [page], check=True) == []
    assert pictures.fingerprint_of(out / "left.png") == pictures.fingerprint_of(out / "none.png") == ""


def test_files_need_a_folder():
    with pytest.raises(SystemExit, match="files and --to must be given together"):
        main(["some.csv"])
