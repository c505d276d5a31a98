"""NVTabular's ``KerasSequenceLoader``, which Keras 3 cannot train from, made to build ours. No TensorFlow here.

Older notebooks import the loader from NVTabular, and do so before they import this library. So the class itself is changed,
which also works for a name that was bound before: calling it builds ``merlin_models.loader.tensorflow.KerasSequenceLoader``
from the same arguments. Subclasses are left alone. ``merlin_models.tf`` does this when it is imported.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULE = "nvtabular.loader.tensorflow"
CLASS = "KerasSequenceLoader"


def redirect() -> None:
    """Makes NVTabular's class build our loader: now, or as soon as its module is imported.

    Without NVTabular nothing happens. Calling it again changes nothing.

    Example:
        >>> import merlin_models.tf  # calls it
        >>> from nvtabular.loader.tensorflow import KerasSequenceLoader  # doctest: +SKIP
        >>> KerasSequenceLoader("train/*.parquet", batch_size=4096).__class__.__module__  # doctest: +SKIP
        'merlin_models.loader.tensorflow'
    """
    module = sys.modules.get(MODULE)
    if module is not None:
        _redirect_class(getattr(module, CLASS))
    elif not _finders():
        sys.meta_path.insert(0, _Finder())


def restore() -> None:
    """Undoes :func:`redirect`: NVTabular's class builds its own objects again.

    Example:
        >>> from merlin_models.loader import nvtabular_loader
        >>> nvtabular_loader.restore()  # doctest: +SKIP
    """
    for finder in _finders():
        sys.meta_path.remove(finder)
    module = sys.modules.get(MODULE)
    if module is not None:
        # Not deleted: Python would then refuse arguments to the inherited __new__.
        getattr(module, CLASS).__new__ = staticmethod(lambda cls, *args, **kwargs: object.__new__(cls))


def _redirect_class(original: type) -> None:
    def build(cls: type, *args: Any, **kwargs: Any) -> Any:
        if cls is not original:
            return object.__new__(cls)
        from merlin_models.loader.tensorflow import KerasSequenceLoader

        return KerasSequenceLoader(*args, **kwargs)  # no instance of `original`, so its __init__ is not run

    original.__new__ = staticmethod(build)


class _Finder(importlib.abc.MetaPathFinder):
    """Has the others find the one module, and changes the class once it was run."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != MODULE:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_redirect(module: ModuleType) -> None:
                run(module)
                _redirect_class(getattr(module, CLASS))

            spec.loader.exec_module = run_and_redirect
        return spec


def _finders() -> list[_Finder]:
    return [finder for finder in sys.meta_path if isinstance(finder, _Finder)]
