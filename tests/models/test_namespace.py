"""The public names, the examples in their docstrings, and the wall to TensorFlow."""

from __future__ import annotations

import doctest
import importlib
import pathlib
import pkgutil
import re

import pytest

import merlin_models.tf as ml
from merlin_models import blocks, layers, losses, metrics, models, samplers, tasks, transformers, transforms

PACKAGES = (blocks, layers, losses, metrics, models, samplers, tasks, transformers, transforms)
MODULES = [f"{package.__name__}.{each.name}" for package in PACKAGES for each in pkgutil.iter_modules(package.__path__)]


@pytest.mark.parametrize("package", [ml, *PACKAGES], ids=lambda package: package.__name__)
def test_all_names_exist(package):
    assert sorted(package.__all__, key=str.lower) == sorted(set(package.__all__), key=str.lower)
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert failed == 0


@pytest.mark.parametrize("module", MODULES)
def test_no_tensorflow_above_the_ops(module):
    source = pathlib.Path(importlib.import_module(module).__file__).read_text()
    assert not re.search(r"^\s*(import|from) tensorflow", source, re.MULTILINE)
