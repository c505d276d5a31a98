"""What pages say in passing is there: paths, names, arguments, tests, variables of the environment, make targets, extras."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import inspect
import pathlib
import re
import tomllib

import pytest
from markdown_pages import PAGES, ROOT, name_of, parse
from test_api_pages import MODULES

OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FOLDERS = ("benchmarks", "cmake", "csrc", "docs", "examples", "merlin_models", "requirements", "tests")
# Where a path begins that a page shortens.
SHORTENED = {"docs/datasets.md": ROOT / "merlin_models" / "datasets"}
PUBLIC = {
    name: getattr(importlib.import_module(f"merlin_models.{module}"), name)
    for module in MODULES
    for name in importlib.import_module(f"merlin_models.{module}").__all__
}


def inline_code(page: pathlib.Path) -> list[str]:
    return [token.content for token in parse(page) if token.type == "code_inline"]


@pytest.fixture(params=[*PAGES, *OTHERS], ids=name_of)
def page(request):
    return request.param


def test_paths_exist(page):
    pattern = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]+|[\w-]+/[\w./-]+\.(?:py|md|cc|cuh?|h|inc)")
    paths = {code for code in inline_code(page) if pattern.fullmatch(code)}
    start = SHORTENED.get(name_of(page), ROOT)
    there = {path for path in paths if any(ROOT.glob(path)) or any(start.glob(path))}
    assert sorted(path for path in paths - there if "foo" not in path) == []  # `foo` is an op that readers write


FILES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}


def test_files_named_without_their_folder_exist(page):
    names = {code for code in inline_code(page) if re.fullmatch(r"[\w*-]+\.(?:py|cc|cuh?|h|inc|\*)", code)}
    unknown = [name for name in names if not any(fnmatch.fnmatch(file, re.sub("^_", "*_", name)) for file in FILES)]
    assert sorted(name for name in unknown if "foo" not in name) == []


@pytest.mark.parametrize("folder", ["loader", "datasets"])
def test_tables_of_files_have_all_of_a_folder(folder):
    start = ROOT / "merlin_models" / folder
    table = (ROOT / "docs" / f"{folder}.md").read_text().split("## Where it is")[1]
    files = {path.relative_to(start).as_posix() for path in start.rglob("*.py") if path.name != "__init__.py"}
    listed = set()
    for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE):
        paths = re.findall(r"`([\w/.]+)`", cell)
        in_folder = paths[0].rpartition("/")[0]  # of the first, which those behind it share
        listed |= {path if "/" in path or not in_folder else f"{in_folder}/{path}" for path in paths}
    assert listed == files


def test_dotted_names_can_be_imported(page):
    names = {match[1] for code in inline_code(page) if (match := re.match(r"((?:ml|merlin_models)(?:\.\w+)+)", code))}
    assert sorted(name for name in names if not _is_there(name)) == []


def _is_there(name: str) -> bool:
    parts = re.sub(r"^ml\.", "merlin_models.tf.", name).split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def _arguments(made: object) -> set[str]:
    """Those that it takes by name; of a class also what it hands to the classes that it derives from."""
    names: set[str] = set()
    for part in made.__mro__ if inspect.isclass(made) else (made,):
        found = part.__dict__.get("__init__") if inspect.isclass(part) else part
        if found is None:
            continue
        parameters = inspect.signature(found).parameters
        names |= set(parameters)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return names


def _arguments_of_methods() -> dict[str, set[str]]:
    """Of the methods that a public class, or what it derives from, has: what one of that name takes."""
    found: dict[str, set[str]] = {}
    parts = {part for made in PUBLIC.values() if inspect.isclass(made) for part in made.__mro__} - {object}
    for part in parts:
        for name, member in vars(part).items():
            member = getattr(member, "__func__", member)
            if inspect.isfunction(member) and not name.startswith("_"):
                found.setdefault(name, set()).update(inspect.signature(member).parameters)
    return found


METHODS = _arguments_of_methods()


def test_arguments_are_taken(page):
    """``Name(..., argument=...)`` in passing, and ``method(argument=...)``."""
    unknown = []
    for code in inline_code(page):
        try:
            tree = ast.parse(re.sub(r"=(?=[,)])", "=None", code))
        except SyntaxError:
            continue
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            given = {word.arg for word in call.keywords if word.arg is not None}
            owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else "ml"
            if name in PUBLIC and owner == "ml":
                unknown += [(code, argument) for argument in sorted(given - _arguments(PUBLIC[name]))]
            elif name in METHODS and name != "loss" and owner.split(".")[0] not in ("keras", "np", "pd", "tf"):
                unknown += [(code, argument) for argument in sorted(given - METHODS[name])]
    without = [("Filter(pop=...)", "pop"), ("connect(context=...)", "context")]  # which a page names as not here
    assert [each for each in unknown if each not in without] == []


def test_tests_that_pages_name_exist():
    tests = {path.name for path in (ROOT / "tests").rglob("*.py")}
    for path in (ROOT / "tests").rglob("test_*.py"):
        tests |= set(re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE))
    for path in PAGES:
        named = {code for code in inline_code(path) if re.fullmatch(r"test_\w+(?:\.py)?", code)}
        assert named <= tests, name_of(path)


def test_variables_of_the_environment_are_read_somewhere_and_all_of_ours_are_on_a_page():
    text = "\n".join(path.read_text() for path in [*PAGES, *OTHERS])
    named = set(re.findall(r"\b(?:MERLIN|INPUT)_\w+", text))
    sources = [
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".cc", ".txt")
    ]
    code = "\n".join(path.read_text() for path in [*sources, ROOT / "Makefile", ROOT / "CMakeLists.txt"])
    assert sorted(name for name in named if name not in code) == []
    read = set(re.findall(r"(?:environ\.get\(|environ\[|getenv\()\"(\w+)\"", code))
    ours = {name for name in read if name.startswith(("MERLIN_", "INPUT_"))}
    assert len(ours) >= 4
    assert sorted(ours - named) == []


def test_make_targets_are_listed():
    makefile = (ROOT / "Makefile").read_text()
    targets = {target for line in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE) for target in line.split()} - {
        "FORCE"
    }
    head = makefile.split("\n\nPYTHON")[0]
    table = (ROOT / "CONTRIBUTING.md").read_text()
    assert sorted(target for target in targets if not re.search(rf"[ |]{target}\b", head)) == []
    assert sorted(target for target in targets if f"make {target}`" not in table) == []


def test_extras_are_listed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = (ROOT / "README.md").read_text().split("| extra | brings |")[1].split("\n\n")[0]
    listed = [
        name for cell in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]
    assert sorted(listed) == sorted(extras)
