"""Models of each kind, trained in two halves of which the second is in a process of its own: the bits of one training."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import every_model
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("names", [list(every_model.MODELS)[start::3] for start in range(3)], ids=",".join)
def test_training_goes_on_from_a_file(tmp_path, names):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = pathlib.Path(every_model.__file__)
    for half in ("first", "second"):
        command = [sys.executable, "-W", "ignore", str(script), half, str(tmp_path), *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-6000:]
        assert done.stdout.splitlines() == names
