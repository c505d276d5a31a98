"""The examples in the docstrings that the API pages show give what they say."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io

import pytest
import tensorflow as tf
from test_api_pages import PATHS, find

import merlin_models.tf  # noqa: F401  (what examples take for imported stays out of their time)

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FINDER = doctest.DocTestFinder(recurse=True, exclude_empty=True)


def _examples(path: str) -> list[doctest.DocTest]:
    """Those of the object, and of the methods that its class defines itself."""
    found = find(path)
    module = importlib.import_module(found.__module__) if inspect.getmodule(found) else None
    return [test for test in FINDER.find(found, path, module=module, globs={}) if test.examples]


@pytest.fixture(autouse=True)
def eagerly():
    """Without tracing a function for each example: the same values in a third of the time."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though the .tf.config.experimental_run_functions_eagerly")
@pytest.mark.parametrize("path", [path for path in PATHS if ">>>" in (find(path).__doc__ or "") or _examples(path)])
def test_examples(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    for test in _examples(path):
        test.globs = {}
        with contextlib.redirect_stdout(io.StringIO()):
            failed = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.write).failed
        assert not failed, said.getvalue()
