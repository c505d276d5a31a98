"""What ``tf.train.Checkpoint`` sees of layers that hold others in lists and dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras


class InCheckpoints:
    """A mixin for layers and models (before Keras' class in the bases): all weights are in ``tf.train.Checkpoint``.

    On Keras' TensorFlow backend a checkpoint has what is an attribute of a layer, and not what is in an attribute's list or
    dictionary. Here it has all variables of the layer and of those below, random states of dropout included, by names that
    the structure tells: "MLPBlock_0-Dense_1-kernel" is the kernel of the second Dense of the first MLPBlock. Keras' own
    names do not do, as they count up from model to model.

    What is built after ``restore`` takes its values then. A ``keras.Model`` of others must be built before: Keras builds it
    where variables cannot be restored.
    """

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "checkpoint":
            children.update(_named_variables(self, "", set()))
        return children

    def _post_build(self) -> None:
        """Called by Keras once the layer is built: what a checkpoint restored before is for variables that are new."""
        super()._post_build()
        if keras.backend.backend() == "tensorflow":
            for name, variable in _named_variables(self, "", set()):
                self._handle_deferred_dependencies(name, variable)


def _named_variables(layer: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The variables of a layer and of those below, each once, and their names."""
    seen.add(id(layer))
    states = [generator.state for generator in layer._seed_generators]
    own = [*layer._trainable_variables, *layer._non_trainable_variables, *states]
    count: Counter[str] = Counter()
    for variable in own:
        if id(variable) not in seen:
            seen.add(id(variable))
            number = count[variable.name]
            yield f"{prefix}{variable.name}{f'_{number}' if number else ''}", variable
        count[variable.name] += 1
    count.clear()
    for below in layer._layers:
        kind = type(below).__name__
        if id(below) not in seen:
            yield from _named_variables(below, f"{prefix}{kind}_{count[kind]}-", seen)
        count[kind] += 1
