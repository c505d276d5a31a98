"""What is one layer stays one in configs, and what is copied shares nothing with its original or with other copies.

Keras marks objects that a config has several times, but only while it writes and reads files, and all that is serialized or
made in that time shares the marks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import ObjectSharingScope

_MARKS = ("shared_objects/id_to_obj_map", "shared_objects/id_to_config_map")


@contextlib.contextmanager
def reading_marks() -> Iterator[None]:
    """While active, what a config marks as one object becomes one: as in a file that Keras reads, also without one."""
    if global_state.get_global_attribute(_MARKS[0]) is not None:
        yield  # of the file, whose scope must not be left here
        return
    with ObjectSharingScope():
        yield


@contextlib.contextmanager
def marking_shared_layers(layer: keras.layers.Layer) -> Iterator[None]:
    """While active, configs mark the layers that belong to several others here or below, such as tied tables.

    Keras marks what is shared when it comes to it for the second time, and by then a block around the first place has its
    copy. Here each place is a second one.
    """
    shared = _in_several_places(layer)
    with reading_marks() if shared else contextlib.nullcontext():
        for each in shared:
            keras.saving.serialize_keras_object(each)
        yield


@contextlib.contextmanager
def apart_from_files() -> Iterator[None]:
    """While active, no file is written or read as far as marks go.

    Several copies that are made of one layer while a file is read would otherwise get the layers below it in common.
    """
    before: list[Any] = [global_state.get_global_attribute(name) for name in _MARKS]
    try:
        for name in _MARKS:
            global_state.set_global_attribute(name, None)
        yield
    finally:
        for name, marks in zip(_MARKS, before, strict=True):
            global_state.set_global_attribute(name, marks)


def _in_several_places(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that belong to several others, such as a table whose rows also score the output."""
    parents: dict[int, set[int]] = {}
    layers = {id(each): each for each in layer._flatten_layers()}
    for parent in layers.values():
        for child in parent._flatten_layers(include_self=False, recursive=False):
            parents.setdefault(id(child), set()).add(id(parent))
    return [layers[child] for child, of in parents.items() if len(of) > 1]
