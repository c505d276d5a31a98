"""What pages link to outside of docs/ (README.md, examples, rows of benchmarks) becomes part of the site.

Links stay as they are in the sources, where viewers of the repository follow them. A hook of MkDocs.
"""

from __future__ import annotations

import pathlib
import posixpath
import re

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = "docs"
FOLDER = "source"  # of the site
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
SHOWN = {".py": "python", ".toml": "toml", ".txt": "text", "": "text"}  # as pages; others are files beside the pages
LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=[\"']?(?:https?:)?//|<link[^>]+rel=[\"']?stylesheet[^>]+href=[\"']?https?:"
)

_sources: dict[str, str] = {}  # pages from outside of docs/: their place in the site -> in the repository


def on_files(files, config):
    """Adds all that is linked to, and what that links to."""
    _sources.clear()
    waiting = [f"{DOCS}/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        source = waiting.pop()
        for target in _targets(source):
            if target in seen or target.startswith(f"{DOCS}/"):
                continue
            seen.add(target)
            place, path = place_of(target), ROOT / target
            if not path.exists():
                raise PluginError(f"{source} links to {target}, which does not exist.")
            if not place.endswith(".md"):
                files.append(File.generated(config, place, abs_src_path=str(path)))
                continue
            _sources[place] = target
            files.append(File.generated(config, place, content=_page(target)))
            waiting.append(target)
    return files


def on_page_markdown(markdown, page, config, files):
    """Bends links to outside of docs/, or from there, to where the site has them."""
    here = page.file.src_uri
    source = _sources.get(here, f"{DOCS}/{here}")

    def bend(link: re.Match) -> str:
        target = _resolve(source, link[1])
        if source.startswith(f"{DOCS}/") and target.startswith(f"{DOCS}/"):
            return link[0]
        place = posixpath.relpath(place_of(target), posixpath.dirname(here) or ".")
        return f"]({place}{link[2] or ''})"

    return "".join(part if i % 2 else LINK.sub(bend, part) for i, part in enumerate(CODE.split(markdown)))


def on_post_page(output, page, config):
    """The site loads nothing from elsewhere."""
    found = LOADED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} must load nothing from other sites. Received: {found[0]}...")
    return output


def place_of(target: str) -> str:
    """Where the site has a path of the repository."""
    path = pathlib.PurePosixPath(target)
    if target.startswith(f"{DOCS}/"):
        return target.removeprefix(f"{DOCS}/")
    if (ROOT / target).is_dir():
        return f"{FOLDER}/{target}/index.md"
    if path.suffix == ".md":
        return str(FOLDER / path.with_name(path.name.lower()))
    return f"{FOLDER}/{target}.md" if path.suffix in SHOWN else f"{FOLDER}/{target}"


def _resolve(source: str, link: str) -> str:
    base = source if (ROOT / source).is_dir() else posixpath.dirname(source)
    return posixpath.normpath(posixpath.join(base, link))


def _targets(source: str) -> list[str]:
    text = _page(source) if not source.startswith(f"{DOCS}/") else (ROOT / source).read_text()
    return [_resolve(source, link[0]) for part in CODE.split(text)[::2] for link in LINK.findall(part)]


def _page(target: str) -> str:
    path = ROOT / target
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
        return "\n".join([f"# {target}", "", *(f"- [{name}]({name})" for name in names)])
    if path.suffix == ".md":
        return path.read_text()
    return f"# {target}\n\n```{SHOWN[path.suffix]}\n{path.read_text()}\n```\n"
