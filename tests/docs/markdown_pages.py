"""The pages of the documentation, parsed: their links, headings and code blocks."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import pathlib
import re

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
NEEDS = re.compile(r"<!-- not run without (\w+) -->")
SMALLER = re.compile(r"<!-- tested with: (.+?) -> (.+?) -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: the fence's first word.
        code: its text, or what is run in its place: a comment ``<!-- tested with: 200_000 -> 6_000 -->`` before the fence
            replaces a number.
        line: of its first line of code in the page, counted from 1.
        reason: why a test does not run it, from a comment ``<!-- not run: ... -->`` before the fence, or because the module
            of ``<!-- not run without ... -->`` is not installed; or None.
        output: the text block that follows without a word between: what the code prints; or None.
    """

    language: str
    code: str
    line: int
    reason: str | None
    output: str | None


def name_of(page: pathlib.Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def parse(page: pathlib.Path) -> list[Token]:
    """All tokens of a page, those in paragraphs and tables too."""
    tokens: list[Token] = []
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        tokens += [token, *(token.children or [])]
    return tokens


def blocks_of(page: pathlib.Path) -> list[Block]:
    """The page's fenced blocks, in order."""
    tokens = parse(page)
    found = []
    for before, token, after in zip([None, *tokens], tokens, [*tokens[1:], None], strict=False):
        if token.type != "fence":
            continue
        comment = before.content if before is not None and before.type == "html_block" else ""
        not_run, smaller, needs = (pattern.match(comment) for pattern in (NOT_RUN, SMALLER, NEEDS))
        reason = not_run and not_run[1]
        if needs is not None and importlib.util.find_spec(needs[1]) is None:
            reason = f"{needs[1]} is not installed"
        code = token.content
        if smaller is not None:
            assert smaller[1] in code, f"{name_of(page)}:{token.map[0]} has nothing like {smaller[1]}"
            code = code.replace(smaller[1], smaller[2])
        shown = after.content if after is not None and after.type == "fence" and after.info == "text" else None
        language = token.info.split()[0] if token.info else ""
        found.append(Block(language, code, token.map[0] + 2, reason, shown))
    return found


def links_of(page: pathlib.Path) -> list[str]:
    """Where the page's links and images lead."""
    attributes = {"link_open": "href", "image": "src"}
    return [str(token.attrs[attributes[token.type]]) for token in parse(page) if token.type in attributes]


def anchors_of(page: pathlib.Path) -> set[str]:
    """The anchors of its headings, as GitHub and the site name them."""
    tokens = parse(page)
    titles = [
        "".join(part.content for part in inline.children or [] if part.type in ("text", "code_inline"))
        for heading, inline in itertools.pairwise(tokens)
        if heading.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
