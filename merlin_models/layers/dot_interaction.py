"""DotInteraction: DLRM's pairwise dot products, in the place of keras_rs.layers.DotInteraction."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from merlin_models.layers.embedding_bag_collection import EmbeddingBagCollection
from merlin_models.ops.dot_interaction import check_options, dot_interaction
from merlin_models.ops.lookup_interaction import fuses_here, lookup_interaction, why_not_fused


@keras.saving.register_keras_serializable(package="merlin_models")
class DotInteraction(keras.layers.Layer):
    """The dot products of all pairs of feature vectors, packed into one row an example.

    Takes the arguments of ``keras_rs.layers.DotInteraction`` and gives its numbers, from one kernel that reads each vector
    once; see :func:`merlin_models.ops.dot_interaction`.

    Args:
        self_interaction: with the products of each vector with itself.
        skip_gather: for the full matrix, flattened to (batch, features * features), with zeros above the diagonal (and on
            it without ``self_interaction``). Saves nothing here: the packed products are spread out.
        order: "lower" or "upper": which triangle is read row by row.
        concat_first: put the first feature before the products.
        pad_to: pad the width with zeros to a multiple of this.
        precision: of float32 on a GPU: "float32", "tf32", or None for TensorFlow's own setting.

    Call arguments:
        inputs: a list of tensors (batch, dim) or (batch, features, dim), or one tensor (batch, features, dim). They are
            cast to the layer's compute dtype.

    Returns:
        (batch, width) of the compute dtype: features * (features - 1) / 2 products, with ``self_interaction``
        features * (features + 1) / 2; plus what the other arguments add.

    Raises:
        ValueError: for other ranks, or shapes that differ in batch or dim.

    Example:
        >>> import numpy as np
        >>> from merlin_models.layers import DotInteraction
        >>> movie, user, genre = (np.ones((4, 16), "float32") for _ in range(3))
        >>> DotInteraction()([movie, user, genre]).shape
        TensorShape([4, 3])

    Reference:
        Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, 2019,
        https://arxiv.org/abs/1906.00091
    """

    def __init__(
        self,
        self_interaction: bool = False,
        skip_gather: bool = False,
        order: str = "lower",
        concat_first: bool = False,
        pad_to: int = 1,
        precision: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_options(order, pad_to, precision)
        if skip_gather and (order != "lower" or concat_first or pad_to != 1):
            raise ValueError("skip_gather must not be combined with order, concat_first or pad_to.")
        self.self_interaction, self.skip_gather = bool(self_interaction), bool(skip_gather)
        self.order, self.concat_first, self.pad_to, self.precision = order, bool(concat_first), pad_to, precision
        self.supports_jit = False  # the op has no XLA kernel

    def call(self, inputs: Any) -> Any:
        parts = _parts(inputs)
        features, _ = _sizes(parts)
        packed = dot_interaction(
            [ops.cast(part, self.compute_dtype) for part in parts],
            order=self.order,
            self_interaction=self.self_interaction,
            concat_first=self.concat_first,
            pad_to=self.pad_to,
            precision=self.precision,
        )
        if not self.skip_gather:
            return packed
        pairs = features * (features + (1 if self.self_interaction else -1)) // 2
        places = np.full((features, features), pairs)  # of what is not a pair: a column of zeros
        places[np.tril_indices(features, 0 if self.self_interaction else -1)] = np.arange(pairs)
        return ops.take(ops.pad(packed, [[0, 0], [0, 1]]), places.reshape(-1), axis=-1)

    def of_lookups(
        self,
        collection: EmbeddingBagCollection,
        inputs: dict[str, Any],
        first: Any = None,
        training: bool | None = None,
    ) -> Any:
        """``self([first, *collection(inputs).values()])`` by one op that looks up and multiplies, or None.

        The result is the same to the bit. On a GPU the looked-up vectors are not written to memory.

        Args:
            collection: built.
            inputs: feature -> ids, as the collection takes them.
            first: (batch, dim), a vector before those of the collection, or None.
            training: whether a gradient will be asked for, which looks the rows up once more.

        Returns:
            (batch, width); None where the op has no kernel for the inputs, or nothing to gain: without a GPU, with
            ``skip_gather``, on symbolic inputs, for a collection that adds to the loss, in training with several ids a
            feature, and for what ``merlin_models.ops.why_not_fused`` says.
        """
        if self.skip_gather or collection.penalizes or not fuses_here() or not collection.built:
            return None
        if any(isinstance(value, keras.KerasTensor) for value in keras.tree.flatten([inputs, first])):
            return None
        names = list(collection.table_configs)
        features = collection.features
        arguments = {
            "tables": [collection.tables[name] for name in names],
            "features": collection.bags(inputs),
            "combiners": [feature.table.combiner for feature in features],
            "first": None if first is None else ops.cast(first, self.compute_dtype),
            "output_dtype": self.compute_dtype,
        }
        if why_not_fused(**arguments):
            return None
        if training and any(bags.values.shape[1] > 1 for bags in arguments["features"]):
            return None
        return lookup_interaction(
            **arguments,
            table_of_feature=[names.index(feature.table.name) for feature in features],
            order=self.order,
            self_interaction=self.self_interaction,
            concat_first=self.concat_first and first is not None,
            pad_to=self.pad_to,
            precision=self.precision,
            names=[feature.name for feature in features],
        )

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        one = not isinstance(input_shape[0], list | tuple)
        shapes = [input_shape] if one else input_shape
        features = sum(1 if len(shape) == 2 else shape[1] for shape in shapes)
        if self.skip_gather:
            return shapes[0][0], features * features
        width = features * (features + (1 if self.self_interaction else -1)) // 2
        width += shapes[0][-1] if self.concat_first else 0
        return shapes[0][0], -(-width // self.pad_to) * self.pad_to

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        parts = _parts(inputs)
        _sizes(parts)
        return keras.KerasTensor(self.compute_output_shape([tuple(part.shape) for part in parts]), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "self_interaction": self.self_interaction,
            "skip_gather": self.skip_gather,
            "order": self.order,
            "concat_first": self.concat_first,
            "pad_to": self.pad_to,
            "precision": self.precision,
        }


def _parts(inputs: Any) -> list[Any]:
    return list(inputs) if isinstance(inputs, list | tuple) else [inputs]


def _sizes(parts: list[Any]) -> tuple[int, int]:
    """Number of features and their dim.

    Raises:
        ValueError: if they are not known, or the parts disagree.
    """
    if not parts:
        raise ValueError("inputs must hold at least one tensor. Received: none")
    shapes = [tuple(part.shape) for part in parts]
    for i, shape in enumerate(shapes):
        if len(shape) not in (2, 3):
            raise ValueError(f"inputs must have rank 2 or 3. Received rank {len(shape)} at index {i}")
        if None in shape[1:]:
            raise ValueError(f"inputs must have static shapes but for the batch. Received: {shape} at index {i}")
        if shape[-1] != shapes[0][-1] or (None not in (shape[0], shapes[0][0]) and shape[0] != shapes[0][0]):
            raise ValueError(
                "inputs must have one batch size and one last dimension. "
                f"Received: {shapes[0]} at index 0 and {shape} at index {i}"
            )
    return sum(1 if len(shape) == 2 else shape[1] for shape in shapes), shapes[0][-1]
