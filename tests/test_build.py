"""What was built, and what is said when it does not fit."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

import merlin_models
from merlin_models import _native


def test_show_build(capsys):
    merlin_models.show_build()
    shown = capsys.readouterr().out
    info = _native.build_info()
    assert info["merlin_models"] == merlin_models.__version__
    assert info["CPU instruction set"] in ("baseline", "avx2", "avx512")
    for name, value in info.items():
        assert f"{name} " in shown
        assert value in shown
    assert ("GPU architectures" in info) == _native.has_cuda()


@pytest.mark.parametrize("installed", ["2.20.0", "2.22.1", "3.21.0"])
def test_another_tensorflow_is_an_import_error_that_names_both(installed):
    with pytest.raises(ImportError, match=rf"built for TensorFlow 2\.21\.\*, but TensorFlow {installed} is installed"):
        _native.check_tensorflow_version(installed, built_for="2.21.0")


def test_another_patch_release_is_fine():
    _native.check_tensorflow_version("2.21.7", built_for="2.21.0")


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm, of binutils, lists a library's symbols")
def test_no_cuda_symbol_is_left_to_others():
    """TensorFlow's GPU build exports a CUDA runtime of its own, which must not answer for ours."""
    folder = pathlib.Path(_native._build_info.__file__).parent
    libraries = sorted(folder.glob("*.so"))
    assert {library.name.split(".")[0] for library in libraries} == {"_C", "libmerlin_kernels", "libmerlin_tf_ops"}
    for library in libraries:
        listed = subprocess.run(["nm", "-D", str(library)], capture_output=True, text=True, check=True).stdout
        wanted = [line for line in listed.splitlines() if " U " in line and "cuda" in line.lower().split(" u ")[-1]]
        mangled = [line for line in wanted if "merlin" not in line]
        assert not mangled, f"{library.name} wants {mangled}"
