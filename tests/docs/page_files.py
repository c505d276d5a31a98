"""The files that pages read: the folders train/ and valid/ that docs/getting_started.md makes."""

from __future__ import annotations

import os
import pathlib

from markdown_pages import ROOT, blocks_of

PAGE = ROOT / "docs" / "getting_started.md"


def write_files(folder: pathlib.Path) -> None:
    """Runs that page's first block in a folder."""
    block = next(block for block in blocks_of(PAGE) if block.language == "python")
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(block.code, str(PAGE), "exec"), {"__name__": "__main__"})
    finally:
        os.chdir(before)
