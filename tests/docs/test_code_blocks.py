"""Blocks of Python in README.md and docs/ run and print what the page says that they print; other blocks are read.

A page's blocks run in order in one namespace, in a folder with the files of ``page_files``. What a page cannot run says why
in a comment before its fence, ``<!-- not run: reason -->`` or ``<!-- not run without module -->``; the first are counted
here. A ``text`` block right behind a block is its output: its words must be the same, its numbers may be others.

Of the shell's commands those of Python that only tell something are run; the others build, install, train, measure or serve.
Of each block bash reads the syntax, of each command the program must be there, with its targets, modules, files and options.
JSON is parsed, in blocks and in what a command sends.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest
from markdown_pages import PAGES, ROOT, blocks_of, name_of
from page_files import write_files

LANGUAGES = {"python", "sh", "bash", "text", "json"}
WITH_PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks_of(page))]
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
# Blocks that no test runs: page, and how many. A new one is a decision.
NOT_RUN = {"docs/migration.md": 1, "docs/serving.md": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """The current folder of a page, with the files that pages read; leaves Keras as it was."""
    import keras

    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    yield tmp_path
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_blocks_run(page, folder):
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.language != "python" or block.reason is not None:
            continue
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if block.output is not None:
            assert _words(printed.getvalue()) == _words(block.output), f"{name_of(page)}:{block.line} prints otherwise"


def _words(text: str) -> list[str]:
    return NUMBER.sub("0", text).split()


LEFT_OUT = [
    (f"{name_of(page)}:{block.line}", block.reason)
    for page in PAGES
    for block in blocks_of(page)
    if block.reason is not None
]


@pytest.mark.parametrize(("place", "reason"), LEFT_OUT)
def test_blocks_that_are_not_run(place, reason):
    """Shows them among what pytest skips."""
    pytest.skip(f"{place}: {reason}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fences_name_their_language_and_reason(page):
    blocks = blocks_of(page)
    assert {block.language for block in blocks} <= LANGUAGES
    reasons = [block.reason for block in blocks if block.reason is not None]
    assert all(len(reason) > 10 for reason in reasons)
    always = [reason for reason in reasons if not reason.endswith("is not installed")]
    assert len(always) == NOT_RUN.get(name_of(page), 0), reasons


def test_comments_stand_right_before_their_fences():
    """One that does not would be ignored."""
    for page in PAGES:
        comments = re.findall(r"<!-- (?:not run: |not run without \w|tested with: )", page.read_text())
        assert len(comments) == len(re.findall(r"^<!-- .* -->\n```", page.read_text(), re.MULTILINE)), name_of(page)


SHELL = [
    (f"{name_of(page)}:{block.line}", block)
    for page in PAGES
    for block in blocks_of(page)
    if block.language in ("sh", "bash")
]


@pytest.mark.parametrize("block", [block for _, block in SHELL], ids=[place for place, _ in SHELL])
def test_bash_can_read_the_shells_blocks(block):
    done = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_can_be_read():
    blocks = [block.code for page in PAGES for block in blocks_of(page) if block.language == "json"]
    sent = [text for _, block in SHELL for text in re.findall(r" -d '(.*?)'", block.code, re.DOTALL)]
    assert blocks
    assert sent
    for text in (*blocks, *sent):
        assert isinstance(json.loads(text), dict)


def _commands() -> list[tuple[str, list[str]]]:
    """Page and words, without variables before the command, of what is not left out."""
    lines = [
        (place.split(":")[0], line)
        for place, block in SHELL
        if block.reason is None
        for line in block.code.replace("\\\n", " ").splitlines()
    ]
    words = [(page, shlex.split(line, comments=True)) for page, line in lines]
    return [(page, list(itertools.dropwhile(lambda word: "=" in word, each))) for page, each in words if each]


@pytest.mark.parametrize(("page", "words"), _commands())
def test_commands_exist(page, words):
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
    elif words[:2] == ["python", "-m"] and words[2].split(".")[0] == "benchmarks":
        _has_options(_file_of(words[2]), words[3:])
    elif words[0] == "python" and words[1] not in ("-c", "-m"):
        _has_options(ROOT / words[1], words[2:])
    else:
        assert words[0] in ("pip", "python", "cd", "curl") or shutil.which(words[0]), words[0]


def _file_of(module: str) -> pathlib.Path:
    """That ``python -m`` runs."""
    path = ROOT.joinpath(*module.split("."))
    main = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__main__.py"
    moved = re.search(r"^from ([\w.]+) import main$", main.read_text(), re.MULTILINE)  # which another file defines
    return ROOT.joinpath(*moved[1].split(".")).with_suffix(".py") if moved else main


def _has_options(program: pathlib.Path, words: list[str]) -> None:
    unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in program.read_text()]
    assert unknown == [], f"{program.name} has no such options"


TELLING = [words for _, words in _commands() if words[:2] == ["python", "-c"] or "--list" in words]


@pytest.mark.parametrize("words", TELLING, ids=" ".join)
def test_commands_that_only_tell_something_run(words, capsys):
    if words[1] == "-c":
        exec(compile(words[2], "command", "exec"), {})
    else:
        assert importlib.import_module(_module_of_main(words[2])).main(words[3:]) in (0, None)
    assert capsys.readouterr().out


def _module_of_main(module: str) -> str:
    return ".".join(_file_of(module).relative_to(ROOT).with_suffix("").parts)
