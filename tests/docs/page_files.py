"""The files that pages read: the folders train/ and valid/ that docs/getting_started.md makes, and raw data."""

from __future__ import annotations

import os
import pathlib
import sys

from markdown_pages import ROOT, blocks_of

sys.path.append(str(ROOT / "tests" / "datasets"))
from criteo_data import write_twin
from movielens_data import make_release

PAGE = ROOT / "docs" / "getting_started.md"


def write_files(folder: pathlib.Path) -> None:
    """Runs that page's first block in a folder, and writes files like Criteo's and MovieLens' into logs/ and data/."""
    block = next(block for block in blocks_of(PAGE) if block.language == "python")
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(block.code, str(PAGE), "exec"), {"__name__": "__main__"})
    finally:
        os.chdir(before)
    for day in range(3):
        write_twin(folder / "logs" / f"day_{day}", rows=100, seed=day)
    make_release(folder / "data" / "ml-1m", "ml-1m")
