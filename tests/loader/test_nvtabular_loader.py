"""NVTabular's KerasSequenceLoader builds ours, whichever of the two libraries is imported first."""

from __future__ import annotations

import importlib
import sys

import pyarrow as pa
import pytest

from merlin_models.loader import nvtabular_loader
from merlin_models.loader.tensorflow import KerasSequenceLoader

FAKE = """
class KerasSequenceLoader:
    def __init__(self, *args, **kwargs):
        self.args = args
"""
TABLE = pa.table({"item": [3, 1, 2], "clicked": [1, 0, 1]})


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """A package nvtabular of only the one class, not imported yet; and no redirection yet."""
    folder = tmp_path / "nvtabular" / "loader"
    folder.mkdir(parents=True)
    for file in (folder.parent / "__init__.py", folder / "__init__.py"):
        file.touch()
    (folder / "tensorflow.py").write_text(FAKE)
    for name in [name for name in sys.modules if name.split(".")[0] == "nvtabular"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if f not in nvtabular_loader._finders()])
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: importlib.import_module(nvtabular_loader.MODULE).KerasSequenceLoader
    for name in [name for name in sys.modules if name.split(".")[0] == "nvtabular"]:
        del sys.modules[name]


def redirect_before(importable):
    nvtabular_loader.redirect()
    return importable()


def redirect_after(importable):
    bound = importable()
    nvtabular_loader.redirect()
    return bound


@pytest.mark.parametrize("order", [redirect_before, redirect_after])
def test_class_builds_our_loader(order, importable):
    theirs = order(importable)
    nvtabular_loader.redirect()
    loader = theirs(TABLE, batch_size=2, label_names=["clicked"], shuffle=False)
    assert type(loader) is KerasSequenceLoader
    features, labels = loader.peek()
    assert features["item"].numpy().tolist() == [[3], [1]]
    assert labels.numpy().tolist() == [[1], [0]]
    assert len(nvtabular_loader._finders()) <= 1


@pytest.mark.parametrize("order", [redirect_before, redirect_after])
def test_subclasses_stay_theirs(order, importable):
    theirs = order(importable)
    own = type("Own", (theirs,), {})(TABLE, 2)
    assert isinstance(own, theirs)
    assert own.args == (TABLE, 2)


@pytest.mark.parametrize("order", [redirect_before, redirect_after])
def test_restore(order, importable):
    theirs = order(importable)
    nvtabular_loader.restore()
    assert isinstance(theirs(TABLE, 2), theirs)
    assert theirs(TABLE, 2).args == (TABLE, 2)
    assert not nvtabular_loader._finders()
    nvtabular_loader.redirect()
    assert type(theirs(TABLE, 2)) is KerasSequenceLoader


def test_restore_before_the_import(importable):
    nvtabular_loader.redirect()
    nvtabular_loader.restore()
    theirs = importable()
    assert isinstance(theirs(TABLE, 2), theirs)


def test_module_keeps_its_loader(importable):
    nvtabular_loader.redirect()
    theirs = importable()
    module = sys.modules[theirs.__module__]
    assert module.__spec__.loader.get_source(module.__name__) == FAKE


def test_other_imports_are_not_touched(importable):
    nvtabular_loader.redirect()
    finder = nvtabular_loader._finders()[0]
    assert finder.find_spec("nvtabular.loader", None) is None
    assert importlib.util.find_spec("nvtabular.no_such_module") is None


def test_the_order_of_the_old_notebooks(run_python):
    pytest.importorskip("nvtabular", reason="needs nvtabular")
    done = run_python(
        "import warnings; warnings.simplefilter('ignore')\n"
        "import pyarrow as pa\n"
        "from nvtabular.loader.tensorflow import KerasSequenceLoader\n"
        "import merlin_models.tf as ml\n"
        "loader = KerasSequenceLoader(pa.table({'item': [3, 1, 2]}), batch_size=2, cat_names=['item'], cont_names=[])\n"
        "print(isinstance(loader, ml.KerasSequenceLoader), ml.Loader is ml.KerasSequenceLoader, len(loader))\n"
    )
    assert done.stdout.split() == ["True", "True", "2"]
