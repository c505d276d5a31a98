"""Each message that docs/troubleshooting.md explains is one that the sources raise."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re

import pytest
from markdown_pages import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
ENTRIES = re.findall(r"^### `(.+?)`$\n\n(.*)$", PAGE.read_text(), re.MULTILINE)
# Raised by what is no Python source: pip, compiled parts of NumPy and TensorFlow, the operating system.
ELSEWHERE = {
    "numpy.dtype size changed, may indicate binary incompatibility",
    "has invalid metadata",
    "No such file or directory: 'train/schema.pbtxt'",
    "OOM when allocating tensor",
    "Detected unsupported operations when trying to compile graph",
    "Received a label value of ... which is outside the valid range of [0, ...)",
}


def _texts_of_python(source: str) -> list[str]:
    """String constants, those in pieces as one; a value in between is a zero byte."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def _texts_of_cpp(source: str) -> list[str]:
    """The string constants of each statement in one text."""
    return ["\0".join(re.findall(r'"((?:[^"\\]|\\.)*)"', statement)) for statement in source.split(";")]


def _texts() -> list[str]:
    texts: list[str] = []
    files = [*(ROOT / "merlin_models").rglob("*.py"), *(ROOT / "requirements").glob("*.py")]
    keras = pathlib.Path(importlib.util.find_spec("keras").origin).parent / "src"
    files += [keras / "trainers/trainer.py", keras / "trainers/data_adapters/__init__.py"]
    files += [keras / "saving/serialization_lib.py", keras / "saving/saving_lib.py"]
    for file in files:
        texts += _texts_of_python(file.read_text())
    for file in [*(ROOT / "csrc").rglob("*.cc"), *(ROOT / "csrc").rglob("*.cu")]:
        texts += _texts_of_cpp(file.read_text())
    return [" ".join(text.replace("`", "").split()) for text in texts]


TEXTS = _texts()


def _occurs(message: str) -> bool:
    parts = [re.escape(part.strip(" ")) for part in message.split("...") if part.strip(" ,.")]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in TEXTS)


@pytest.mark.parametrize(("message", "explained"), ENTRIES, ids=[message[:60] for message, _ in ENTRIES])
def test_the_message_is_raised(message, explained):
    assert len(explained) > 40
    if message not in ELSEWHERE:
        assert _occurs(message)


def test_a_message_that_is_not_raised_is_found_out():
    assert len(ENTRIES) > 30
    assert not _occurs("Ids of feature '...' must be in [1, ...)")
    assert {message for message, _ in ENTRIES} >= ELSEWHERE


ERRORS_OF_SERVING = re.findall(
    r"^\| `(.+?)`", (ROOT / "docs" / "serving.md").read_text().split("## Errors")[1], re.MULTILINE
)
# TensorFlow's own.
OF_TENSORFLOW = ("Op type not registered", "indices[...]")
VALUE = re.compile(r"(?<!\w)'[^']*'|\[[^]]*\]|\bnan\b|\b(?:uint8|int64|Filter)\b|genres__offsets|-?\d+")


@pytest.mark.parametrize("message", ERRORS_OF_SERVING)
def test_the_errors_of_serving_are_raised(message):
    """With names and values of an example in them, which stand for any."""
    if not message.startswith(OF_TENSORFLOW):
        rule, *received = VALUE.sub("...", message).split(". Received: ")
        assert all(_occurs(part) for part in (rule, *received) if part != "...")


def test_the_errors_of_serving_are_all_read():
    assert len(ERRORS_OF_SERVING) >= 9
