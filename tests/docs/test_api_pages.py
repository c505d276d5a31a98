"""The API pages have every public name, and only names that there are."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
from markdown_pages import ROOT

PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
TEXT = "\n".join(page.read_text() for page in PAGES)
PATHS = re.findall(r"^::: ([\w.]+)$", TEXT, re.MULTILINE)
NAMED = {path.rpartition(".")[2] for path in PATHS} | set(re.findall(r"`(?:ml\.)?(?:\w+\.)*(\w+)[`(]", TEXT))
MODULES = (
    "tf",
    "ops",
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "schema",
    "datasets",
    "loader.tensorflow",
    "serving",
    "blocks",
    "models",
    "transforms",
    "datasets.criteo",
    "datasets.synthetic",
    "data",
    "implicit",
    "lightfm",
    "xgb",
)


def find(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_a_page(module):
    public = importlib.import_module(f"merlin_models.{module}").__all__
    assert sorted(set(public) - NAMED) == []


def test_the_older_import_name_has_nothing_else():
    older, schema = importlib.import_module("merlin_standard_lib"), importlib.import_module("merlin_models.schema")
    assert {name: getattr(older, name) for name in older.__all__} == {
        name: getattr(schema, name) for name in older.__all__
    }


def test_pages_name_what_there_is():
    unknown = [path for path in PATHS if not callable(find(path))]
    assert unknown == []


def test_no_name_has_two_places():
    assert sorted({path for path in PATHS if PATHS.count(path) > 1}) == []


@pytest.mark.parametrize("path", PATHS)
def test_what_is_shown_is_described(path):
    assert (find(path).__doc__ or "").strip(), f"{path} has no docstring"


KERAS = {"self", "name", "dtype", "trainable", "args", "kwargs"}  # what Keras' classes have is Keras' to describe


def _own_parameters(shown: object) -> set[str]:
    if inspect.isclass(shown) and "__init__" not in shown.__dict__:
        return set()  # those of the class that it derives from
    parameters = inspect.signature(shown.__init__ if inspect.isclass(shown) else shown).parameters.values()
    return {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)} - KERAS


@pytest.mark.parametrize("path", PATHS)
def test_arguments_are_described(path):
    shown = find(path)
    text = shown.__doc__.split("\n    Example:")[0]
    missing = sorted(name for name in _own_parameters(shown) if not re.search(rf"\b{name}\b", text))
    assert missing == []


ALIASES = re.findall(r"^::: ([\w.]+)\n(?:    .*\n)*\nAlso `ml\.(\w+)`", TEXT, re.MULTILINE)


def test_other_names_are_of_the_same():
    assert len(ALIASES) > 10
    assert [(path, name) for path, name in ALIASES if find(path) is not find(f"merlin_models.tf.{name}")] == []


WITH_MEMBERS = re.findall(r"^::: ([\w.]+)\n    options:\n      members: null$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("path", WITH_MEMBERS)
def test_methods_that_a_page_shows_are_described(path):
    """Those without a docstring would be left out. What a class has from others, such as Keras', is theirs to describe."""
    shown = find(path)
    inherited = {name for base in shown.__mro__[1:] for name in vars(base)}
    kinds = (property, classmethod, staticmethod)
    own = {
        name: getattr(member, "__func__", getattr(member, "fget", member))
        for name, member in vars(shown).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds))
    }
    assert sorted(name for name, made in own.items() if not made.__doc__ and name not in inherited) == []


def test_all_have_an_example():
    assert [path for path in PATHS if ">>>" not in find(path).__doc__] == []


ROLE = re.compile(r":(class|func|meth|data|attr|mod):`~?([^`]+)`")


def _docstrings(shown: object) -> list[str]:
    members = vars(shown).values() if inspect.isclass(shown) else ()
    return [each.__doc__ for each in (shown, *members) if isinstance(getattr(each, "__doc__", None), str)]


def _is_shown(kind: str, name: str, shown: object) -> bool:
    owner, _, last = name.rpartition(".")
    if kind not in ("meth", "attr"):
        return last in NAMED
    owners = [shown] if not owner else [find(path) for path in PATHS if path.rpartition(".")[2] == owner]
    return any(hasattr(each, last) for each in owners)


@pytest.mark.parametrize("path", PATHS)
def test_what_a_docstring_refers_to_is_on_a_page(path):
    shown = find(path)
    referred = {match for text in _docstrings(shown) for match in ROLE.findall(text)}
    assert sorted(name for kind, name in referred if not _is_shown(kind, name, shown)) == []
