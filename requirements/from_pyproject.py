"""Prints requirements that pyproject.toml states, one a line, so that no other file repeats them.

    python requirements/from_pyproject.py build project cpu nvtabular

``build`` stands for what the build needs, ``project`` for what the package needs, and any other name for an extra.
"""

from __future__ import annotations

import pathlib
import sys
import tomllib

PYPROJECT = pathlib.Path(__file__).resolve().parents[1] / "pyproject.toml"


def requirements(*groups: str) -> list[str]:
    """The requirements of `groups`, in order."""
    settings = tomllib.loads(PYPROJECT.read_text())
    lists = {
        "build": settings["build-system"]["requires"],
        "project": settings["project"]["dependencies"],
        **settings["project"]["optional-dependencies"],
    }
    unknown = [group for group in groups if group not in lists]
    if unknown:
        raise ValueError(f"groups must be among {sorted(lists)}. Received: {unknown}.")
    return [line for group in groups for line in lists[group]]


if __name__ == "__main__":
    print("\n".join(requirements(*sys.argv[1:])))
