"""Mixtures of experts for several tasks: ExpertsGate and MMOEBlock."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.aggregation import concat
from merlin_models.blocks.base import Block, copy_of, register
from merlin_models.blocks.combinators import run_in_sequence
from merlin_models.layers.dense import Dense


@register
class ExpertsGate(Block):
    """The mean of experts' outputs, weighted by a softmax over the experts.

    Args:
        num_experts: how many there are.
        gate_block: a layer before the gate's ``Dense(num_experts)``, or None. Used as it is, not copied.
        softmax_temperature: what the gate's scores are divided by; small ones choose, large ones mix evenly.

    Call arguments:
        inputs: dictionary of "experts" (batch, ..., num_experts, dim) and of "shortcut" (batch, ..., any dim), which the
            gate reads; the latter may be a dictionary of tensors, too.

    Returns:
        (batch, ..., dim)

    Raises:
        ValueError: if a number is not positive; if "experts" has another number of experts.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import ExpertsGate
        >>> ExpertsGate(3)({"experts": np.ones((8, 3, 16)), "shortcut": np.ones((8, 10))}).shape
        TensorShape([8, 16])
    """

    def __init__(
        self,
        num_experts: int,
        gate_block: keras.layers.Layer | None = None,
        softmax_temperature: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_number("num_experts", num_experts)
        if not softmax_temperature > 0:
            raise ValueError(f"softmax_temperature must be positive. Received: {softmax_temperature}")
        self.num_experts, self.softmax_temperature = num_experts, float(softmax_temperature)
        self.gate_block = gate_block
        self.scores = Dense(num_experts, dtype=self.dtype_policy)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        experts, shortcut = inputs["experts"], inputs["shortcut"]
        if experts.shape[-2] != self.num_experts:
            raise ValueError(
                f"'experts' must hold {self.num_experts} experts in its last axis but one. Received: {experts.shape}"
            )
        before = [] if self.gate_block is None else [self.gate_block]
        scores = run_in_sequence([*before, self.scores], shortcut, self.compute_dtype)
        # In float32: half floats would round small weights away.
        weights = ops.softmax(ops.cast(scores, "float32") / self.softmax_temperature, axis=-1)
        weights = ops.expand_dims(ops.cast(weights, experts.dtype), -2)
        return ops.squeeze(ops.matmul(weights, experts), -2)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "gate_block": keras.saving.serialize_keras_object(self.gate_block),
            "softmax_temperature": self.softmax_temperature,
        }


@register
class MMOEBlock(Block):
    """Multi-gate mixture of experts: all tasks share the experts, and each mixes them by a gate of its own.

    ``body.connect(ml.MMOEBlock(tasks, ml.MLPBlock([64]), num_experts=4), tasks)``, where ``tasks`` is a
    ``ParallelPredictionBlock`` (such as ``PredictionTasks(schema)``), gives each task its own mixture.

    Args:
        outputs: what the mixtures are for: tasks, a ``ParallelPredictionBlock``, or names.
        expert_block: a layer, copied for each expert, with weights of its own.
        num_experts: how many.
        gate_block: a layer, copied for each gate before its ``Dense(num_experts)``; None for that alone.
        gate_softmax_temperature: see :class:`ExpertsGate`.

    Call arguments:
        inputs: (batch, ..., dim), or a dictionary of such tensors, which are concatenated in the order of names.

    Returns:
        Dictionary output's name -> (batch, ..., the expert's dim).

    Raises:
        ValueError: if a number is not positive, or names are not unique.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import MLPBlock, MMOEBlock
        >>> mixtures = MMOEBlock(["click", "like"], MLPBlock([16]), num_experts=3)(np.ones((8, 10)))
        >>> {name: tuple(mixture.shape) for name, mixture in mixtures.items()}
        {'click': (8, 16), 'like': (8, 16)}

    Reference:
        Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, 2018,
        https://dl.acm.org/doi/10.1145/3219819.3220007
    """

    def __init__(
        self,
        outputs: Any,
        expert_block: keras.layers.Layer,
        num_experts: int,
        gate_block: keras.layers.Layer | None = None,
        gate_softmax_temperature: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.output_names = names_of(outputs)
        check_number("num_experts", num_experts)
        self.num_experts, self.gate_softmax_temperature = num_experts, float(gate_softmax_temperature)
        self._templates = templates(expert_block, gate_block)
        self.experts = [copy_of(expert_block, f"expert_{i}") for i in range(num_experts)]
        self.gates = [
            new_gate(num_experts, gate_block, gate_softmax_temperature, self.dtype_policy) for _ in self.output_names
        ]

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        # Keras hands `training` to the sublayers.
        if isinstance(inputs, Mapping):
            inputs = concat(inputs, self.compute_dtype)
        experts = ops.stack([expert(inputs) for expert in self.experts], axis=-2)
        return {
            name: gate({"experts": experts, "shortcut": inputs})
            for name, gate in zip(self.output_names, self.gates, strict=True)
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "outputs": list(self.output_names),
            **serialized(self._templates),
            "num_experts": self.num_experts,
            "gate_softmax_temperature": self.gate_softmax_temperature,
        }


def names_of(outputs: Any) -> list[str]:
    """The names of tasks, of the tasks of a block, or names themselves.

    Raises:
        ValueError: if there is none, or one twice.
    """
    outputs = getattr(outputs, "tasks", outputs)
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    outputs = list(outputs) if isinstance(outputs, Sequence) and not isinstance(outputs, str) else [outputs]
    names = [getattr(output, "task_name", output) for output in outputs]
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError(f"outputs must be tasks or names, one or several, each once. Received: {names}")
    return names


def check_number(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer. Received: {value!r}")


def templates(expert_block: Any, gate_block: Any) -> types.SimpleNamespace:
    """Layers to copy. In a namespace, so that they do not count as sublayers.

    Raises:
        TypeError: if they are no layers.
    """
    for name, layer in (("expert_block", expert_block), ("gate_block", gate_block)):
        if not isinstance(layer, keras.layers.Layer) and not (name == "gate_block" and layer is None):
            raise TypeError(f"{name} must be a Keras layer. Received: {layer!r}")
    return types.SimpleNamespace(expert_block=expert_block, gate_block=gate_block)


def serialized(parts: types.SimpleNamespace) -> dict[str, Any]:
    return {name: keras.saving.serialize_keras_object(layer) for name, layer in vars(parts).items()}


def new_gate(num_experts: int, gate_block: Any, temperature: float, dtype: Any) -> ExpertsGate:
    block = None if gate_block is None else copy_of(gate_block)
    return ExpertsGate(num_experts, block, temperature, dtype=dtype)
