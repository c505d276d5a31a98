"""Experts of a task's own beside shared ones: CGCBlock and PLEBlock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.aggregation import concat
from merlin_models.blocks.base import Block, copy_of, register
from merlin_models.blocks.experts import check_number, names_of, new_gate, serialized, templates

SHARED = "shared"


@register
class CGCBlock(Block):
    """Customized gate control: a task's gate mixes experts of its own and shared ones.

    Args:
        outputs: as in :class:`MMOEBlock`. No name may be "shared".
        expert_block: a layer, copied for each expert, with weights of its own.
        num_task_experts: experts of each task.
        num_shared_experts: experts of all.
        add_shared_gate: whether one more gate mixes all experts, into the output "shared".
        gate_block, gate_softmax_temperature: as in :class:`MMOEBlock`.

    Call arguments:
        inputs: (batch, ..., dim), or a dictionary of such tensors, which are concatenated; or the output of another
            CGCBlock of the same outputs with ``add_shared_gate``: then a task's experts and gate get the task's entry, and
            the shared ones get "shared".

    Returns:
        Dictionary output's name -> (batch, ..., the expert's dim).

    Raises:
        ValueError: if a number is not positive, or names are not unique or "shared".

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import CGCBlock, MLPBlock
        >>> mixtures = CGCBlock(["click", "like"], MLPBlock([16]), num_shared_experts=2)(np.ones((8, 10)))
        >>> {name: tuple(mixture.shape) for name, mixture in mixtures.items()}
        {'click': (8, 16), 'like': (8, 16)}

    Reference:
        Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
        Recommendations, 2020, https://dl.acm.org/doi/10.1145/3383313.3412236
    """

    def __init__(
        self,
        outputs: Any,
        expert_block: keras.layers.Layer,
        num_task_experts: int = 1,
        num_shared_experts: int = 1,
        add_shared_gate: bool = False,
        gate_block: keras.layers.Layer | None = None,
        gate_softmax_temperature: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.output_names = names_of(outputs)
        if SHARED in self.output_names:
            raise ValueError(f"No output may be named '{SHARED}'. Received: {self.output_names}")
        check_number("num_task_experts", num_task_experts)
        check_number("num_shared_experts", num_shared_experts)
        self.num_task_experts, self.num_shared_experts = num_task_experts, num_shared_experts
        self.add_shared_gate = add_shared_gate
        self.gate_softmax_temperature = float(gate_softmax_temperature)
        self._templates = templates(expert_block, gate_block)
        self.task_experts = [
            [copy_of(expert_block, f"task_{t}_expert_{i}") for i in range(num_task_experts)]
            for t in range(len(self.output_names))
        ]
        self.shared_experts = [copy_of(expert_block, f"shared_expert_{i}") for i in range(num_shared_experts)]

        def gate(num_experts: int) -> keras.layers.Layer:
            return new_gate(num_experts, gate_block, gate_softmax_temperature, self.dtype_policy)

        self.gates = [gate(num_task_experts + num_shared_experts) for _ in self.output_names]
        everyone = num_task_experts * len(self.output_names) + num_shared_experts
        self.shared_gate = gate(everyone) if add_shared_gate else None

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        # Keras hands `training` to the sublayers.
        inputs = self._inputs_of_outputs(inputs)
        shared = [expert(inputs[SHARED]) for expert in self.shared_experts]
        own = [
            [expert(inputs[name]) for expert in experts]
            for name, experts in zip(self.output_names, self.task_experts, strict=True)
        ]
        outputs = {
            name: gate({"experts": ops.stack([*experts, *shared], axis=-2), "shortcut": inputs[name]})
            for name, gate, experts in zip(self.output_names, self.gates, own, strict=True)
        }
        if self.shared_gate is not None:
            everyone = ops.stack([*(expert for experts in own for expert in experts), *shared], axis=-2)
            outputs[SHARED] = self.shared_gate({"experts": everyone, "shortcut": inputs[SHARED]})
        return outputs

    def _inputs_of_outputs(self, inputs: Any) -> dict[str, Any]:
        names = [*self.output_names, SHARED]
        if isinstance(inputs, Mapping) and set(inputs) == set(names):
            return dict(inputs)
        if isinstance(inputs, Mapping):
            inputs = concat(inputs, self.compute_dtype)
        return dict.fromkeys(names, inputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "outputs": list(self.output_names),
            **serialized(self._templates),
            "num_task_experts": self.num_task_experts,
            "num_shared_experts": self.num_shared_experts,
            "add_shared_gate": self.add_shared_gate,
            "gate_softmax_temperature": self.gate_softmax_temperature,
        }


@register
class PLEBlock(Block):
    """Progressive layered extraction: :class:`CGCBlock` after :class:`CGCBlock`, all but the last with a shared gate.

    Args:
        num_layers: how many.
        outputs, expert_block, num_task_experts, num_shared_experts, gate_block, gate_softmax_temperature: of each
            :class:`CGCBlock`.

    Call arguments:
        inputs: (batch, ..., dim), or a dictionary of such tensors, which are concatenated in the order of names.

    Returns:
        Dictionary output's name -> (batch, ..., the expert's dim).

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import MLPBlock, PLEBlock
        >>> mixtures = PLEBlock(2, ["click", "like"], MLPBlock([16]))(np.ones((8, 10)))
        >>> {name: tuple(mixture.shape) for name, mixture in mixtures.items()}
        {'click': (8, 16), 'like': (8, 16)}

    Reference:
        Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
        Recommendations, 2020, https://dl.acm.org/doi/10.1145/3383313.3412236
    """

    def __init__(
        self,
        num_layers: int,
        outputs: Any,
        expert_block: keras.layers.Layer,
        num_task_experts: int = 1,
        num_shared_experts: int = 1,
        gate_block: keras.layers.Layer | None = None,
        gate_softmax_temperature: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_number("num_layers", num_layers)
        self.extractions = [
            CGCBlock(
                outputs,
                expert_block,
                num_task_experts,
                num_shared_experts,
                layer < num_layers - 1,
                gate_block,
                gate_softmax_temperature,
                dtype=self.dtype_policy,
            )
            for layer in range(num_layers)
        ]

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        # Keras hands `training` to the sublayers.
        for extraction in self.extractions:
            inputs = extraction(inputs)
        return inputs

    def get_config(self) -> dict[str, Any]:
        of_one = self.extractions[0].get_config()
        base = super().get_config()
        own = {name: value for name, value in of_one.items() if name not in base and name != "add_shared_gate"}
        return {**base, **own, "num_layers": len(self.extractions)}
