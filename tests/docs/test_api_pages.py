"""The API pages have every public name, and only names that there are."""

from __future__ import annotations

import importlib
import re

import pytest
from markdown_pages import ROOT

PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
TEXT = "\n".join(page.read_text() for page in PAGES)
PATHS = re.findall(r"^::: ([\w.]+)$", TEXT, re.MULTILINE)
MODULES = ("tf", "ops", "layers", "losses", "metrics", "optimizers", "schema", "datasets", "loader.tensorflow")


def find(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_a_page(module):
    public = importlib.import_module(f"merlin_models.{module}").__all__
    named = {path.rpartition(".")[2] for path in PATHS} | set(re.findall(r"`(?:ml\.)?(?:\w+\.)*(\w+)[`(]", TEXT))
    assert sorted(set(public) - named) == []


def test_pages_name_what_there_is():
    unknown = [path for path in PATHS if not callable(find(path))]
    assert unknown == []


def test_no_name_has_two_places():
    assert sorted({path for path in PATHS if PATHS.count(path) > 1}) == []


@pytest.mark.parametrize("path", PATHS)
def test_what_is_shown_is_described(path):
    assert (find(path).__doc__ or "").strip(), f"{path} has no docstring"
