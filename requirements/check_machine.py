"""Stops with a clear message where something that the build needs is not on the machine.

Run by the Makefile with the Python that the virtual environment will be made from.
"""

import os
import shutil
import sys
import sysconfig


def missing() -> list:
    """One line for each thing that is not there."""
    lines = []
    if sys.version_info < (3, 11):
        lines.append(
            "Python 3.11 or newer: %s is %s; try make PYTHON=python3.11" % (sys.executable, sys.version.split()[0])
        )
        return lines
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        lines.append("Python's venv module; on Debian: apt-get install python3-venv")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        lines.append("Python's headers; on Debian: apt-get install python3-dev")
    if not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")):
        lines.append("a C++ compiler; on Debian: apt-get install g++")
    return lines


if __name__ == "__main__":
    lines = missing()
    if lines:
        sys.exit("merlin_models cannot be built here. Missing:\n" + "\n".join("  - " + line for line in lines))
