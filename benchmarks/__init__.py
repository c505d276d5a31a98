"""Benchmarks: every speed claim of this repository is a row that ``python -m benchmarks.run`` wrote."""

from __future__ import annotations

import pathlib
import sys

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# The source folder has no compiled part unless a developer put it there: measure the installed package then.
if not (_ROOT / "merlin_models" / "_build_info.py").exists():
    sys.path[:] = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != _ROOT]
    sys.path.append(str(_ROOT))
