"""Every block of Python in README.md and docs/ runs, and prints what the page says that it prints.

A page's blocks run in order in one namespace, in a folder with the files of ``page_files``. What a page cannot run says why
in a comment before its fence, ``<!-- not run: reason -->`` or ``<!-- not run without module -->``; the first are counted
here. A ``text`` block right behind a block is its output: its words must be the same, its numbers may be others.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil

import pytest
from markdown_pages import PAGES, ROOT, blocks_of, name_of
from page_files import write_files

LANGUAGES = {"python", "sh", "bash", "text", "json"}
WITH_PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks_of(page))]
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
# Blocks that no test runs: page, and how many. A new one is a decision.
NOT_RUN = {"docs/migration.md": 1}


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


def _commands() -> list[tuple[str, str]]:
    return [
        (name_of(page), line.split("#")[0].strip())
        for page in PAGES
        for block in blocks_of(page)
        if block.language in ("sh", "bash") and block.reason is None
        for line in block.code.replace("\\\n", " ").splitlines()
        if line.split("#")[0].strip()
    ]


@pytest.mark.parametrize(("page", "command"), _commands())
def test_commands_exist(page, command):
    words = command.split()
    while "=" in words[0]:  # variables before the command
        words = words[1:]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
    elif words[:2] == ["python", "-m"]:
        module = words[2].split(".")
        if module[0] == "benchmarks":
            assert ROOT.joinpath(*module).with_suffix(".py").exists() or ROOT.joinpath(*module, "__main__.py").exists()
    elif words[0] == "python" and words[1] != "-c":
        assert (ROOT / words[1]).exists()
    else:
        assert words[0] in ("pip", "python", "cd") or shutil.which(words[0]), words[0]
