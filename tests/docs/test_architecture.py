"""The layers of docs/architecture.md: what one never sees, its files do not import."""

from __future__ import annotations

import ast
import re

import pytest
from markdown_pages import ROOT

from merlin_models import ops

PACKAGE = ROOT / "merlin_models"
WITHOUT_TENSORFLOW = (
    *("blocks", "transforms", "transformers", "tasks", "models", "layers", "losses", "metrics", "samplers"),
    *("implicit", "lightfm", "xgb", "wrappers", "datasets"),
)
WITHOUT_LAYERS = ("ops", "schema", "loader", "metrics")
OF_A_SCHEMA = {"embedding_options.py", "embedding_bag_collection.py"}


def imported(path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def those_that_import(folder: str, pattern: str) -> set[str]:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files, folder
    return {file.name for file in files if any(re.match(pattern, name) for name in imported(file))}


@pytest.mark.parametrize("folder", WITHOUT_TENSORFLOW)
def test_no_tensorflow_above_the_ops(folder):
    assert those_that_import(folder, r"tensorflow(\.|$)") == set()


@pytest.mark.parametrize("folder", WITHOUT_LAYERS)
def test_no_layers_below_them(folder):
    assert those_that_import(folder, r"merlin_models\.(layers|blocks|tasks|models)\b") == set()


def test_layers_and_ops_see_no_schema():
    assert those_that_import("layers", r"merlin_models\.schema") == OF_A_SCHEMA
    assert those_that_import("ops", r"merlin_models\.schema") == set()
    assert those_that_import("optimizers", r"merlin_models\.schema") == set()


def test_kernels_include_no_framework():
    kernels = [
        path
        for path in (ROOT / "csrc").glob("*/*")
        if re.search(r"_cpu\w*\.cc$|\.cuh?$", path.name) or path.stem == path.parent.name
    ]
    assert len(kernels) > 15
    frameworks = re.compile(r'#include [<"](tensorflow|pybind11|Python\.h)')
    assert [path.name for path in kernels if frameworks.search(path.read_text())] == []


def test_an_op_has_a_file_of_its_stem_in_each_layer():
    folders = {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()} - {"common"}
    names = {name for name in ops.__all__ if (ROOT / "docs" / "ops" / f"{name}.md").exists()}
    assert folders <= names
    for name in names:
        assert (PACKAGE / "ops" / f"{name}.py").exists()
        assert any((ROOT / "tests" / "ops").glob(f"test_{name}*.py"))
    for name in folders:
        assert (ROOT / "benchmarks" / "ops" / f"bench_{name}.py").exists()
