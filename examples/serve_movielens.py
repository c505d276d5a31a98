"""Serves the quickstart's model and its NVTabular workflow over HTTP: raw ids and genres in, chances out.

    python examples/quickstart.py --output quickstart_output
    python examples/serve_movielens.py export --quickstart quickstart_output --folder served
    python examples/serve_movielens.py serve --folder served --port 8000
    curl -s localhost:8000/predict -H 'Content-Type: application/json' \\
        -d '{"rows": [{"userId": 15, "movieId": 296, "genres": ["Comedy", "Crime", "Drama", "Thriller"]}]}'
    python examples/http_load.py --url http://127.0.0.1:8000 --seconds 5

answers {"predictions": [{"rating_b/binary_classification_task": 0.54...}]}: the chance that the user gives more than 3 stars.
Users, movies and genres that training did not have are no errors: the workflow has one id for all of them. What has not the
form of GET /schema is answered with status 422 and the field and its rule, and so is what the workflow or the model refuses.
"""

# No `from __future__ import annotations` here: FastAPI reads the type of a request, which is made at run time.

import argparse
import os
import pathlib
import warnings
from typing import Annotated, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from merlin_models.datasets.workflows import import_nvtabular

nvtabular = import_nvtabular()  # first: it sets what dask needs before anything else imports that

import keras
import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, create_model

import merlin_models.tf  # noqa: F401  what model.keras and exports that are not portable are made of
from merlin_models.serving import RawModel, export_with_workflow, load_with_workflow
from merlin_models.serving.raw_rows import range_of, takes_nulls

MOST_ROWS = 4096  # of a request
MOST_BYTES = 16 * 2**20  # of a request: Python's objects of a JSON text take many times as many
LAST_SECONDS = 10  # that clients have for their requests and answers once the server is told to end


class LimitedBodies:
    """Answers requests whose bodies have more bytes than MOST_BYTES with status 413, before these are in memory."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"")
        parts, came, size = [], 0, int(told) if told.isdigit() else 0
        while size <= MOST_BYTES:  # also what is sent in chunks, without its length
            message = await receive()
            parts.append(message)
            came += len(message.get("body", b""))
            size = max(size, came)
            if size <= MOST_BYTES and not message.get("more_body"):
                await self.app(scope, _received(parts, receive), send)
                return
        detail = [{"type": "too_long", "loc": ["body"], "msg": f"A body should have at most {MOST_BYTES} bytes"}]
        refusal = JSONResponse({"detail": detail}, status_code=413, headers={"Connection": "close"})
        await refusal(scope, receive, send)


def _received(parts: list[dict[str, Any]], receive: Any) -> Any:
    """What hands out the messages that have come, and then those that come."""
    messages = iter(parts)

    async def next_message() -> dict[str, Any]:
        return next(messages, None) or await receive()

    return next_message


def export(quickstart: pathlib.Path, folder: pathlib.Path, portable: bool = True) -> pathlib.Path:
    """Writes the model and the workflow of the quickstart's output into a folder that :func:`make_app` serves.

    Raises:
        FileNotFoundError: if the quickstart left no model there.
    """
    if not (quickstart / "model.keras").is_file():
        raise FileNotFoundError(
            f"--quickstart must be the quickstart's output. Received: {quickstart}, without model.keras"
        )
    model = keras.models.load_model(quickstart / "model.keras")
    workflow = nvtabular.Workflow.load(str(quickstart / "workflow"))
    return export_with_workflow(model, workflow, folder, portable=portable)


def value_of(dtype: Any) -> Any:
    """What a value of a raw column must be: of its kind and range; null, too, where :class:`RawModel` takes it."""
    value = StrictBool if dtype.kind == "b" else StrictStr
    if dtype.kind in "iuf":
        least, largest = range_of(dtype)
        number = Annotated[StrictFloat, Field(allow_inf_nan=False)] if dtype.kind == "f" else StrictInt
        value = Annotated[number, Field(ge=least, le=largest)]
    return value | None if takes_nulls(dtype) else value


def request_of(model: RawModel) -> type[BaseModel]:
    """What a request must be: {"rows": [{column: value}]} with each raw column, of its kind, and no other."""

    def field(dtype: Any, is_list: bool) -> tuple[Any, Any]:
        value = value_of(dtype)
        return (list[value] if is_list else value), Field()

    columns = {name: field(*kind) for name, kind in model.raw_columns.items()}
    row = create_model("Row", __config__=ConfigDict(extra="forbid"), **columns)
    rows = (list[row], Field(min_length=1, max_length=MOST_ROWS))
    return create_model("Request", __config__=ConfigDict(extra="forbid"), rows=rows)


def refusal(message: str, *place: int) -> dict[str, Any]:
    """An error in the form of pydantic's."""
    return {"type": "value_error", "loc": ("body", "rows", *place), "msg": message}


def without_input(error: dict[str, Any]) -> dict[str, Any]:
    """An error's type, place and rule, without what came, which JSON need not be able to tell, such as NaN."""
    place = [_encodable(part) if isinstance(part, str) else part for part in error["loc"]]
    return {"type": error["type"], "loc": place, "msg": _encodable(error["msg"])}


def _encodable(text: str) -> str:
    """UTF-8 has no halves of surrogate pairs, which JSON's escapes can make."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def make_app(model: RawModel) -> FastAPI:
    """The HTTP application: POST /predict, GET /schema, GET /health, and GET /docs, which FastAPI makes."""
    app = FastAPI(title="merlin_models")
    app.add_middleware(LimitedBodies)
    request_type = request_of(model)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": [without_input(each) for each in error.errors()]}, status_code=422)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/schema")
    def schema() -> dict[str, Any]:
        return request_type.model_json_schema()

    @app.post("/predict")
    def predict(request: request_type) -> dict[str, list[dict[str, Any]]]:  # a thread of FastAPI's pool runs it
        try:
            predictions = model.predict([dict(row) for row in request.rows])
        except ValueError as error:  # what the types do not tell, such as a null that the workflow leaves
            raise RequestValidationError([refusal(str(error))]) from error
        finite = [np.isfinite(values).reshape(len(values), -1).all(axis=1) for values in predictions.values()]
        wrong = np.flatnonzero(~np.all(finite, axis=0)).tolist()
        if wrong:
            raise RequestValidationError([refusal("The prediction must be a finite number", row) for row in wrong])
        numbers = {name: values.squeeze(-1).tolist() for name, values in predictions.items()}
        return {"predictions": [dict(zip(numbers, row, strict=True)) for row in zip(*numbers.values(), strict=True)]}

    return app


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("export", help="the quickstart's output into a folder to serve")
    write.add_argument("--quickstart", type=pathlib.Path, default=pathlib.Path("quickstart_output"))
    write.add_argument("--native", action="store_true", help="with this library's ops in the place of stock ones")
    serve = commands.add_parser("serve", help="a folder over HTTP")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000)
    for each in (write, serve):
        each.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("served"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    warnings.simplefilter("ignore")  # of libraries for GPUs that are not there
    if options.command == "export":
        print(f"Wrote {export(options.quickstart, options.folder, portable=not options.native)}/")
        return
    import uvicorn

    app = make_app(load_with_workflow(options.folder))
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=LAST_SECONDS,
    )


if __name__ == "__main__":
    main()
