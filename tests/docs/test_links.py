"""Links and anchors of the documentation lead somewhere, and the site shows each page."""

from __future__ import annotations

import itertools
import re
import urllib.parse

import pytest
from markdown_pages import PAGES, ROOT, anchors_of, links_of, name_of, parse

OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_links_lead_somewhere(page):
    broken = []
    for link in links_of(page):
        path, _, anchor = urllib.parse.unquote(link).partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


def test_each_page_is_in_the_navigation_once():
    settings = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^ +- (?:[^#\n]*: )?([\w./-]+\.md)$", settings.split("\nnav:\n")[1], re.MULTILINE)
    own = [page for page in listed if not page.startswith("source/")]
    pages = [name_of(page).removeprefix("docs/") for page in PAGES if page.name != "README.md"]
    # Generated, a page a machine: their index is in the navigation and leads to them.
    machines = [page for page in pages if page.startswith("benchmarks/") and page != "benchmarks/index.md"]
    if machines:
        assert set(links_of(ROOT / "docs/benchmarks/index.md")) >= {
            page.removeprefix("benchmarks/") for page in machines
        }
    assert sorted(own) == sorted(set(pages) - set(machines))


OPS = sorted((ROOT / "docs" / "ops").glob("*.md"))
OF_AN_OP = {"what-it-computes", "arguments-and-layout", "support", "accuracy-and-determinism", "speed"}


@pytest.mark.parametrize("page", OPS, ids=name_of)
def test_a_page_of_an_op_says_all_of_it(page):
    assert sorted(OF_AN_OP - anchors_of(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_one_title_and_no_heading_twice(page):
    tokens = parse(page)
    headings = [
        (token.tag, inline.content) for token, inline in itertools.pairwise(tokens) if token.type == "heading_open"
    ]
    assert [tag for tag, _ in headings].count("h1") == 1
    assert headings[0][0] == "h1"
    titles = [title for _, title in headings]
    assert len(titles) == len(set(titles)), "two headings of one text have one anchor"
