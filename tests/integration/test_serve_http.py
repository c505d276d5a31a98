"""The server tells what is wrong with a request, whatever Python's reader of JSON makes of it, and never with status 500."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.request

import numpy as np
import pandas as pd
import pytest

import merlin_models.tf as ml
from merlin_models.serving import export_with_workflow, load_with_workflow

pytest.importorskip("nvtabular", reason="needs nvtabular: the workflow")
pytest.importorskip("fastapi", reason="needs fastapi: the extra 'serving'")
pytest.importorskip("httpx", reason="needs httpx: what FastAPI's test client asks with")

import nvtabular
import serve_movielens
from fastapi import testclient
from nvtabular import ops

ROW = {"user": 3, "age": 20, "price": 0.5, "weight": 1.0, "city": "Ulm", "tags": ["a"], "new": True}
HUGE = "1" + 400 * "0"


@pytest.fixture(scope="module")
def raw_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("http")
    rows = {
        "user": np.arange(8, dtype=np.int32),
        "age": np.arange(20, 28, dtype=np.uint8),
        "price": np.linspace(0, 1, 8, dtype=np.float32),
        "weight": np.linspace(0, 1, 8),
        "city": ["Ulm", None] * 4,
        "tags": [["a", None], []] * 4,
        "new": [True, False] * 4,
    }
    ids = ["user", "city", "tags"]
    output = ids >> ops.Categorify(out_path=str(folder / "categories"))
    output += ["age", "new"]
    output += ["price"] >> ops.FillMissing(fill_val=-1)
    output += ["weight"] >> ops.Filter(f=lambda frame: frame[~(frame["weight"] < 0)])
    workflow = nvtabular.Workflow(output).fit(nvtabular.Dataset(pd.DataFrame(rows)))
    columns = [ml.ColumnSchema.create_categorical(name, 20) for name in ("user", "city")]
    columns += [ml.ColumnSchema.create_categorical("tags", 9, value_count=(0, 4))]
    columns += [ml.ColumnSchema.create_continuous(name) for name in ("age", "price", "weight", "new")]
    model = ml.Model(ml.InputBlock(ml.Schema(columns)), ml.BinaryClassificationTask("click"))
    return load_with_workflow(export_with_workflow(model, workflow, folder / "export", portable=True))


@pytest.fixture(scope="module")
def client(raw_model):
    with testclient.TestClient(serve_movielens.make_app(raw_model), raise_server_exceptions=False) as client:
        yield client


def asked(client, text):
    return client.post("/predict", content=text, headers={"Content-Type": "application/json"})


def with_value(name, value):
    """A request whose second row has a value as JSON writes it, or as it should not."""
    row = json.dumps({**ROW, name: "here"}).replace('"here"', value)
    return f'{{"rows": [{json.dumps(ROW)}, {row}]}}'


def refused(answer):
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["detail"]
    assert set(error) == {"type", "loc", "msg"}  # and nothing of what came
    return error["loc"], error["msg"]


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        *((name, value, "valid integer") for name in ("user", "age") for value in ("NaN", "1e400", "null", "3.0")),
        ("user", HUGE, "less than or equal to 2147483647"),
        ("user", str(2**32 + 3), "less than or equal to 2147483647"),
        ("user", "-" + HUGE, "greater than or equal to -2147483648"),
        ("age", "-1", "greater than or equal to 0"),
        ("age", "256", "less than or equal to 255"),
        *((name, value, "finite number") for name in ("price", "weight") for value in ("NaN", "1e400", "-Infinity")),
        *((name, value, "valid number") for name in ("price", "weight") for value in (HUGE, "true", '"1"')),
        ("price", "1e300", "less than or equal to 340282346638528860000000000000000000000"),
        ("price", "-" + 39 * "9", "greater than or equal to -340282346638528860000000000000000000000"),
        ("new", "null", "valid boolean"),
        ("new", HUGE, "valid boolean"),
        ("city", "NaN", "valid string"),
        ("tags", "null", "valid list"),
        ("tags", '"\\ud800"', "valid list"),
    ],
)
def test_values_of_no_column(client, name, value, rule):
    place, message = refused(asked(client, with_value(name, value)))
    assert place == ["body", "rows", 1, name]
    assert rule in message


@pytest.mark.parametrize(
    ("text", "place", "rule"),
    [
        (with_value("city", '"\\ud800"'), [], r"Column 'city' must have strings that UTF-8 can encode"),
        (with_value("tags", '["\\udfff"]'), [], r"Column 'tags' must have strings that UTF-8 can encode"),
        (with_value("tags", "[[NaN]]"), [1, "tags", 0], "valid string"),
        (with_value("\ud800", "1"), [1], "valid string"),
        (with_value("title\u0000", "NaN"), [1, "title\u0000"], "Extra inputs are not permitted"),
        (with_value("weight", "-0.5"), [], "must keep every row. Received: one whose Filter left 1 of 2 rows"),
        (with_value("weight", "null"), [], "Feature 'weight' must have no nulls when it leaves the workflow"),
        (with_value("weight", "1e300"), [], "Feature 'weight' must have numbers of float32"),
        ('{"rows": NaN}', [], "valid list"),
        ('{"rows": [NaN]}', [0], "valid dictionary"),
    ],
)
def test_requests_that_the_workflow_or_json_cannot_have(client, text, place, rule):
    found, message = refused(asked(client, text))
    assert found == ["body", "rows", *place]
    assert rule in message


@pytest.mark.parametrize("text", ["", "{", "NaN", '"\\ud800"', b"\xff\xfe", '{"\\ud800": 1}', 900 * "[" + 900 * "]"])
def test_no_request(client, text):
    for kind in ("application/json", "text/plain"):
        answer = client.post("/predict", content=text, headers={"Content-Type": kind})
        assert answer.status_code == 422
        assert all(set(error) == {"type", "loc", "msg"} for error in answer.json()["detail"])


@pytest.mark.parametrize("text", [100_000 * "[", '{"rows": [1' + 5000 * "0" + "]}"], ids=["deep", "5001 digits"])
def test_what_python_does_not_read(client, text):
    answer = asked(client, text)
    assert (answer.status_code, answer.json()) == (400, {"detail": "There was an error parsing the body"})


def test_bodies_that_are_too_large(client):
    request = json.dumps({"rows": [ROW]}).encode()
    for more, status in ((0, 200), (1, 413)):
        text = request + (serve_movielens.MOST_BYTES - len(request) + more) * b" "
        parts = [text[start : start + 2**20] for start in range(0, len(text), 2**20)]
        for content in (text, iter(parts)):  # the second has no Content-Length
            answer = asked(client, content)
            assert answer.status_code == status
            if status == 413:
                (error,) = answer.json()["detail"]
                assert (error["loc"], error["msg"]) == (["body"], "A body should have at most 16777216 bytes")
    assert asked(client, request).status_code == 200


def test_the_server_ends_while_clients_are_slow(raw_model, monkeypatch):
    """The rest of a request never comes: uvicorn waits for it for ever, unless it is told how long."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: the extra 'serving'")
    servers, told_to_end = [], threading.Event()

    class Server(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

        async def shutdown(self, sockets=None):
            told_to_end.set()
            await super().shutdown(sockets)

    monkeypatch.setitem(uvicorn.run.__globals__, "Server", Server)
    monkeypatch.setattr(serve_movielens, "LAST_SECONDS", 1)
    monkeypatch.setattr(serve_movielens, "load_with_workflow", lambda folder: raw_model)
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    thread = threading.Thread(target=serve_movielens.main, args=(["serve", "--port", str(port)],), daemon=True)
    thread.start()
    while not (servers and servers[0].started):
        assert thread.is_alive()
        time.sleep(0.01)
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
            assert answer.status == 200
        servers[0].should_exit = True
        thread.join(timeout=30)
        assert told_to_end.is_set()
        assert not thread.is_alive()


def test_nulls(client, raw_model):
    rows = [ROW, {**ROW, "price": None}, {**ROW, "city": None}, {**ROW, "tags": [None]}]
    expected = raw_model.predict(rows)["click/binary_classification_task"][:, 0]
    assert len({round(float(chance), 6) for chance in expected}) == 4
    for asked_rows, chances in (
        (rows, expected),
        *(([row], [chance]) for row, chance in zip(rows, expected, strict=True)),
    ):
        answer = client.post("/predict", json={"rows": asked_rows})
        assert answer.status_code == 200
        found = [row["click/binary_classification_task"] for row in answer.json()["predictions"]]
        np.testing.assert_allclose(found, chances, atol=1e-6)
    columns = client.get("/schema").json()["$defs"]["Row"]["properties"]
    nullable = {name for name, kind in columns.items() if {"type": "null"} in kind.get("items", kind).get("anyOf", [])}
    assert nullable == {"price", "weight", "city", "tags"}


def test_predictions_that_json_does_not_have(raw_model):
    class Diverged:
        raw_columns = raw_model.raw_columns

        def predict(self, rows):
            return {"y": np.array([[0.5], [np.nan], [np.inf]]), "z": np.array([[-np.inf], [1.0], [1.0]])}

    client = testclient.TestClient(serve_movielens.make_app(Diverged()))
    errors = client.post("/predict", json={"rows": 3 * [ROW]}).json()["detail"]
    assert [error["loc"] for error in errors] == [["body", "rows", row] for row in range(3)]
    assert {error["msg"] for error in errors} == {"The prediction must be a finite number"}
