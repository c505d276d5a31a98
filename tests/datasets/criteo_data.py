"""Lines of Criteo's text format for the tests, and where the real sample is."""

from __future__ import annotations

import os
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]


def line(label="0", numbers=(), ids=(), width: int = 40) -> str:
    """A line with the given first numbers and ids; what is not given is missing."""
    values = [label, *map(str, numbers), *[""] * (13 - len(numbers)), *ids, *[""] * (26 - len(ids))]
    return "\t".join(values[:width])


def write_twin(path: pathlib.Path, rows: int, seed: int) -> pathlib.Path:
    """Random lines like real ones: skewed numbers, some -1 and some missing, a few hashed ids a column."""
    rng = np.random.default_rng(seed)
    numbers = np.floor(np.exp(rng.normal(1, 2, (rows, 13)))).astype(int) - 1
    texts = np.where(rng.random((rows, 13)) < 0.2, "", numbers.astype(str))
    ids = (rng.zipf(1.5, (rows, 26)) % 50) * 0x9E3779B1 % 2**32
    hashed = np.where(rng.random((rows, 26)) < 0.1, "", np.vectorize("{:08x}".format)(ids))
    labels = (rng.random(rows) < 0.3).astype(int).astype(str)
    lines = ["\t".join(row) for row in np.column_stack([labels, texts, hashed])]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def sample_places() -> list[pathlib.Path]:
    """Where 1,000 rows of Criteo's 1 TB logs are looked for."""
    places = [ROOT.parent / "shared" / "data" / "criteo-1tb-1k"]
    if named := os.environ.get("MERLIN_DATA_DIR"):
        places = [pathlib.Path(named), pathlib.Path(named) / "criteo-1tb-1k", *places]
    return [place / "day_head_1000.tsv" for place in places]
