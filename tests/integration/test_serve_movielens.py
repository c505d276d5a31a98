"""A model and its workflow in one folder, from raw values to predictions, and over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time

import keras
import numpy as np
import pandas as pd
import pytest

import merlin_models.tf as ml
from merlin_models.schema import Schema
from merlin_models.serving import export_with_workflow, load_with_workflow

pytest.importorskip("nvtabular", reason="needs nvtabular: the examples' data preparation")
pytest.importorskip("rich", reason="needs rich: the quickstart's output")
pytest.importorskip("fastapi", reason="needs fastapi: the extra 'serving'")
pytest.importorskip("uvicorn", reason="needs uvicorn: the extra 'serving'")
pytest.importorskip("httpx", reason="needs httpx: what FastAPI's test client asks with")

import http_load
import nvtabular
import quickstart
import serve_movielens
import uvicorn
from fastapi import testclient

CHANCE = "rating_b/binary_classification_task"
ROW = {"userId": 3, "movieId": 11, "genres": ["Drama", "Action"]}


@pytest.fixture(scope="module")
def quickstart_output(twin, tmp_path_factory):
    """What the quickstart leaves, with a model of one epoch."""
    folder = tmp_path_factory.mktemp("quickstart")
    keras.utils.set_random_seed(4)
    model = quickstart.make_model(Schema().from_proto_text(str(twin.schema_path)))
    model.fit(quickstart.make_loader(twin, "train", 256, 3, seed=4), epochs=1, verbose=0)
    model.save(folder / "model.keras")
    shutil.copytree(twin.folder / "workflow", folder / "workflow")
    return folder


@pytest.fixture(scope="module")
def served(quickstart_output, tmp_path_factory):
    """The folder, moved from where it was written."""
    folder = tmp_path_factory.mktemp("served")
    serve_movielens.export(quickstart_output, folder / "here")
    return (folder / "here").rename(folder / "there")


@pytest.fixture(scope="module")
def raw_model(served):
    return load_with_workflow(served)


def test_predictions_of_raw_values_are_those_of_encoded_ones(raw_model, quickstart_output, twin):
    model = keras.models.load_model(quickstart_output / "model.keras")
    expected = model.predict(quickstart.make_loader(twin, "test", 4096, 3), verbose=0)
    raw = pd.read_parquet(twin.folder / "raw" / "test.parquet")
    assert raw_model.output_names == [CHANCE]
    np.testing.assert_allclose(raw_model.predict(raw)[CHANCE], expected, atol=1e-6)
    one_by_one = [raw_model.predict([row])[CHANCE] for row in raw.head(3).to_dict("records")]
    np.testing.assert_allclose(np.concatenate(one_by_one), expected[:3], atol=1e-6)
    columns = {name: list(raw[name].head(3)) for name in ROW}
    np.testing.assert_allclose(raw_model.predict(columns)[CHANCE], expected[:3], atol=1e-6)


def test_the_targets_raw_column_is_not_asked_for(raw_model, served, quickstart_output):
    assert {name: (dtype.kind, is_list) for name, (dtype, is_list) in raw_model.raw_columns.items()} == {
        "userId": ("i", False),
        "movieId": ("i", False),
        "genres": ("O", True),
    }
    whole = nvtabular.Workflow.load(str(quickstart_output / "workflow"))
    assert "rating" in whole.input_schema.column_names
    manifest = json.loads((served / "manifest.json").read_text())
    assert (manifest["format"], manifest["portable"]) == (1, True)
    assert sorted(path.name for path in served.iterdir()) == ["manifest.json", "model", "schema.pbtxt", "workflow"]


def test_unknown_values_no_genres_and_no_rows(raw_model):
    unknown = {"userId": 10**12, "movieId": -5, "genres": ["no such genre"]}
    encoded = raw_model.transform([unknown, {**ROW, "genres": []}])
    assert [encoded["userId"][0], encoded["movieId"][0], list(encoded["genres"][0])] == [2, 2, [2]]  # 2: not in train
    assert list(encoded["genres"][1]) == []
    chances = raw_model.predict([unknown, {**ROW, "genres": []}])[CHANCE]
    assert chances.shape == (2, 1)
    assert np.isfinite(chances).all()
    assert raw_model.predict([])[CHANCE].shape == (0, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"userId": 1, "movieId": 11}], r"Rows must have the columns .* Received none of: \['genres'\]"),
        ([{**ROW, "userId": "7"}], r"Column 'userId' must have integers\. Received: '7'"),
        ([{**ROW, "userId": True}], r"Column 'userId' must have integers\. Received: True"),
        ([{**ROW, "movieId": 2**70}], r"Column 'movieId' must have numbers of int64"),
        ([{**ROW, "genres": "Drama"}], r"Column 'genres' must have a list in each row\. Received: 'Drama'"),
        ([{**ROW, "genres": [5]}], r"Column 'genres' must have strings\. Received: 5"),
        ({"userId": [1], "movieId": [1, 2], "genres": [[]]}, r"Columns must be of one length\. Received: "),
    ],
)
def test_wrong_rows(raw_model, rows, message):
    with pytest.raises(ValueError, match=message):
        raw_model.predict(rows)


def test_wrong_exports(twin, quickstart_output, tmp_path):
    workflow = nvtabular.Workflow.load(str(quickstart_output / "workflow"))
    model = keras.models.load_model(quickstart_output / "model.keras")
    other = ml.EmbeddingEncoder(ml.Schema([ml.ColumnSchema.create_categorical("city", 3)]), dim=4)
    with pytest.raises(ValueError, match=r"make all features of the model, \['city'\]\. .*missing: \['city'\]"):
        export_with_workflow(other, workflow, tmp_path / "export")
    bare = ml.Model(ml.MLPBlock([3]), ml.RegressionTask("y"))
    with pytest.raises(ValueError, match="The model must have a schema to be exported with a workflow"):
        export_with_workflow(bare, workflow, tmp_path / "export")
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"folder must be new or one of export_with_workflow\. Received:"):
        export_with_workflow(model, workflow, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"must be one that export_with_workflow wrote\. Received:"):
        load_with_workflow(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match=r"The export's format must be 1\. Received: 2 in"):
        load_with_workflow(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"without model\.keras"):
        serve_movielens.export(tmp_path, tmp_path / "export")


def test_numbers_strings_and_an_encoder(tmp_path):
    frame = pd.DataFrame({"age": [20.0, 30.0, 40.0], "city": ["Ulm", "Bonn", "Ulm"], "stars": [1, 5, 2]})
    normalized = ["age"] >> nvtabular.ops.Normalize() >> nvtabular.ops.AddTags(["continuous"])
    encoded = (
        ["city"] >> nvtabular.ops.Categorify(out_path=str(tmp_path / "categories")) >> nvtabular.ops.AddTags(["user"])
    )
    workflow = nvtabular.Workflow(normalized + encoded + ["stars"])
    features = workflow.fit_transform(nvtabular.Dataset(frame)).to_ddf().compute()
    columns = [ml.ColumnSchema.create_categorical("city", 4), ml.ColumnSchema.create_continuous("age")]
    model = ml.Encoder(ml.Schema(columns), ml.MLPBlock([4]))
    served = load_with_workflow(export_with_workflow(model, workflow, tmp_path / "export"))
    assert {name: dtype.kind for name, (dtype, _) in served.raw_columns.items()} == {"age": "f", "city": "O"}
    expected = model({"age": features["age"].to_numpy(np.float32), "city": features["city"].to_numpy()})
    np.testing.assert_allclose(served.predict(frame)["vectors"], expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"Column 'age' must have numbers\. Received: 'old'"):
        served.predict([{"age": "old", "city": "Ulm"}])
    assert served.predict([{"age": 20, "city": "Rome"}])["vectors"].shape == (1, 4)
    with pytest.raises(ValueError, match=r"Column 'city' must have strings\. Received: 7"):
        served.predict([{"age": 20, "city": 7}])


def test_http(raw_model):
    client = testclient.TestClient(serve_movielens.make_app(raw_model))
    assert client.get("/health").json() == {"status": "ok"}
    assert set(client.get("/schema").json()["$defs"]["Row"]["required"]) == set(ROW)
    answer = client.post("/predict", json={"rows": [ROW, {**ROW, "userId": 99999, "genres": ["?"]}]})
    assert answer.status_code == 200
    expected = raw_model.predict([ROW, {**ROW, "userId": 99999, "genres": ["?"]}])[CHANCE]
    np.testing.assert_allclose([row[CHANCE] for row in answer.json()["predictions"]], expected[:, 0])


@pytest.mark.parametrize(
    ("request_body", "field", "rule"),
    [
        ({"rows": [{**ROW, "userId": "3"}]}, ["rows", 0, "userId"], "valid integer"),
        ({"rows": [ROW, {**ROW, "movieId": 2**64}]}, ["rows", 1, "movieId"], "less than"),
        ({"rows": [{**ROW, "genres": "Drama"}]}, ["rows", 0, "genres"], "valid list"),
        ({"rows": [{**ROW, "genres": [1]}]}, ["rows", 0, "genres", 0], "valid string"),
        ({"rows": [{**ROW, "title": "Heat"}]}, ["rows", 0, "title"], "Extra inputs are not permitted"),
        ({"rows": [{"userId": 1, "movieId": 1}]}, ["rows", 0, "genres"], "Field required"),
        ({"rows": []}, ["rows"], "at least 1 item"),
        ({"rows": [ROW] * 4097}, ["rows"], "at most 4096 items"),
        ({}, ["rows"], "Field required"),
    ],
)
def test_wrong_requests_name_the_field_and_its_rule(raw_model, request_body, field, rule):
    client = testclient.TestClient(serve_movielens.make_app(raw_model))
    answer = client.post("/predict", json=request_body)
    assert answer.status_code == 422
    (error,) = answer.json()["detail"]
    assert error["loc"] == ["body", *field]
    assert rule in error["msg"]


@pytest.mark.slow  # a server in a process of its own, which imports TensorFlow and NVTabular
def test_the_benchmark_s_server(twin, quickstart_output, tmp_path, monkeypatch):
    from benchmarks.harness import Plan
    from benchmarks.models import bench_serving_http, serving_http

    output = shutil.copytree(twin.folder, tmp_path / "output")
    shutil.copy(quickstart_output / "model.keras", output)
    monkeypatch.setattr(serving_http, "_quickstart_output", lambda: output)
    case = bench_serving_http.CASES["http_b2_c2_smoke"]
    problem, provider = case.build(), serving_http.Native()
    provider.setup(problem, "cpu", "forward", "")
    process = provider._server.process
    assert bench_serving_http.check(provider, problem, "forward", "") < 1e-6
    latencies, numbers = provider.own_times(Plan(case, "cpu", "forward", "", seconds=0.5))
    assert len(latencies) >= 2
    assert numbers["p99_ms"] == pytest.approx(sorted(latencies)[int(len(latencies) * 0.99)], abs=1e-3)
    assert provider.peak_process_bytes() > 100e6
    vars(provider).clear()  # as the harness does
    assert process.poll() is not None


def test_load_over_the_wire(raw_model, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(serve_movielens.make_app(raw_model), port=port, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        load = http_load.measure(f"http://127.0.0.1:{port}", connections=2, rows=3, seconds=0.5)
        assert len(load.latencies) >= 2
        assert 0 < load.percentile(50) <= load.percentile(99) <= max(load.latencies)
        assert load.requests_per_second == len(load.latencies) / load.seconds
        http_load.main(["--url", f"http://127.0.0.1:{port}", "--seconds", "0.1", "--connections", "1", "--rows", "1"])
        assert "p50 ms" in capsys.readouterr().out
        with pytest.raises(RuntimeError, match=r"status 200 and 5000 predictions\. Received: status 422"):
            http_load.measure(f"http://127.0.0.1:{port}", connections=1, rows=5000, seconds=0.1)
    finally:
        server.should_exit = True
        thread.join()
    with pytest.raises(RuntimeError, match=r"Received: no answer, .*refused"):
        http_load.measure(f"http://127.0.0.1:{port}", connections=2, rows=1, seconds=0.1)
