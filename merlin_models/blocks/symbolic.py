"""What blocks and models share: state and output shapes come from running ``call`` on symbolic tensors."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.layers.checkpoints import InCheckpoints
from merlin_models.schema import Schema, Tags


class SymbolicBuild(InCheckpoints):
    """Builds a composite layer by one symbolic run of its ``call``, and configures it from its parts.

    For classes whose ``call`` uses sublayers and ``keras.ops`` only. A run on symbolic tensors builds every
    sublayer, with or without data at hand; that is how models are built from a schema alone, and how they
    load.
    """

    @property
    def schema(self) -> Schema | None:
        """The columns that the block reads by name, or None if it takes whatever comes."""
        return None

    def build(self, input_shape: Any) -> None:
        if not self.built:
            self.compute_output_spec(symbolic_inputs(input_shape, self.schema))
            for layer in list(self._flatten_layers()):
                if not layer.trainable:
                    set_trainable(layer, False)  # also what was made since: a config says it of the block alone

    def compute_output_spec(self, inputs: Any, training: bool | None = None, **others: Any) -> Any:
        # New tensors on both sides keep the inner run out of the graph of an outer functional model.
        return _renewed(self.call(_renewed(inputs), **_renewed(others)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        spec = self.compute_output_spec(symbolic_inputs(input_shape, self.schema))
        return keras.tree.map_structure(lambda tensor: tensor.shape, spec)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**parts_from_config(config))


def set_trainable(layer: keras.layers.Layer, trainable: bool) -> None:
    """Sets it here and below. Keras passes on changes only."""
    layer.trainable = not trainable
    layer.trainable = trainable


def parts_from_config(config: dict[str, Any]) -> dict[str, Any]:
    """A config with its layers made, and its schemas ("schema", "..._schema") read."""
    parts = keras.saving.deserialize_keras_object(dict(config))
    for name, part in parts.items():
        if (name == "schema" or name.endswith("_schema")) and isinstance(part, str):
            parts[name] = Schema.from_json(part)
    return parts


def symbolic_inputs(input_shape: Any, schema: Schema | None) -> Any:
    """Symbolic tensors of the shapes; columns of the schema have its kind of dtype, all else is float."""

    def tensor(shape: Any, dtype: str | None = None) -> keras.KerasTensor | None:
        if shape is None:  # of what an input does not have, such as a TransformerOutput's attentions
            return None
        return keras.KerasTensor((None, *shape[1:]), dtype or keras.config.floatx())

    def tensors(shape: Any, name: str | None) -> Any:
        column = schema[name] if schema is not None and name in schema else None
        dtype = "int64" if column is not None and column.has_tag(Tags.CATEGORICAL) else None
        return keras.tree.map_shape_structure(lambda leaf: tensor(leaf, dtype), shape)

    if input_shape is None:  # Keras' shape of an empty dictionary
        return {}
    if isinstance(input_shape, dict):
        return {name: tensors(shape, name) for name, shape in input_shape.items()}
    only = schema.column_names[0] if schema is not None and len(schema) == 1 else None
    return tensors(input_shape, only)


def shapes_of_schema(schema: Schema) -> dict[str, tuple[int | None, ...]] | None:
    """Input shapes that a schema alone tells, or None if it leaves the width of a vector open."""
    shapes: dict[str, tuple[int | None, ...]] = {}
    for column in schema:
        if not column.is_list and not column.has_tag(Tags.EMBEDDING):
            shapes[column.name] = (None, 1)
        elif column.has_tag(Tags.CATEGORICAL) or (
            column.has_tag(Tags.SEQUENCE) and not column.shape and not column.has_tag(Tags.EMBEDDING)
        ):
            shapes[column.name] = (None, None)
        elif column.shape:
            shapes[column.name] = (None, *column.shape)
        else:
            return None
    return shapes


def rank_of(tensor: Any) -> int | None:
    """The rank, or None if it is not known.

    TensorFlow forgets the rank of a function's argument that came once as (batch,) and once as (batch, 1).
    """
    shape = tensor.shape
    return shape.rank if hasattr(shape, "rank") else len(shape)


def is_symbolic(tensors: Any) -> bool:
    """Whether the tensors stand for shapes only."""
    return any(isinstance(tensor, keras.KerasTensor) for tensor in keras.tree.flatten(tensors))


def _renewed(tensors: Any) -> Any:
    def new(tensor: Any) -> Any:
        if not isinstance(tensor, keras.KerasTensor):
            return tensor
        return keras.KerasTensor(tensor.shape, tensor.dtype, sparse=tensor.sparse, ragged=tensor.ragged)

    return keras.tree.map_structure(new, tensors)
