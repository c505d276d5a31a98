"""Runs the notebooks in their order, each in a kernel of its own; with --write their outputs are kept.

    python examples/notebooks/execute.py --folder data --write

The folder gets the data and takes the place of INPUT_DATA_DIR and OUTPUT_DIR. MERLIN_DATA_DIR chooses small data; see the
first notebook.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import time
from collections.abc import Callable

import nbformat
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).resolve().parent
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONWARNINGS": "ignore",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def notebooks() -> list[pathlib.Path]:
    """The notebooks in the order in which they follow each other."""
    return sorted(HERE.glob("[0-9]*.ipynb"))


def execute(folder: pathlib.Path, report: Callable[[str], None] = print) -> dict[pathlib.Path, nbformat.NotebookNode]:
    """Runs all notebooks.

    Args:
        folder: of the data, is made where it is missing.
        report: gets a line a notebook.

    Returns:
        Path -> the notebook with its outputs. The files are left as they are.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails; it has the cell and what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **QUIET, "INPUT_DATA_DIR": str(folder), "OUTPUT_DIR": str(folder)}
    done = {}
    for path in notebooks():
        started = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(folder)}}).execute(env=environment)
        done[path] = notebook
        report(f"{path.name}: {time.perf_counter() - started:.0f} s")
    return done


def clean(notebook: nbformat.NotebookNode, folder: pathlib.Path) -> None:
    """Makes outputs fit to be kept: of a progress bar its last state; no escape codes, warnings, or paths of a machine."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        outputs = []
        for output in cell.outputs:
            if output.output_type != "stream":
                outputs.append(output)
            elif output.name == "stdout" and outputs and outputs[-1].output_type == "stream":
                outputs[-1].text += output.text
            elif output.name == "stdout":
                outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                output.text = last_state(output.text).replace(str(folder), "~/merlin-data/movielens")
        cell.outputs = outputs
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    notebook.metadata.language_info = {"name": "python"}


def last_state(text: str) -> str:
    """What a terminal shows of a text that goes back to overwrite itself."""
    text = _ESCAPES.sub("", text)
    lines = []
    for line in text.split("\n"):
        states = [part for part in re.split(r"[\r\x08]+", line) if part.strip()]
        lines.append(states[-1].rstrip() if states else "")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="for the data")
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebooks")
    options = parser.parse_args()
    folder = options.folder.resolve()
    for path, notebook in execute(folder).items():
        if options.write:
            clean(notebook, folder)
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
