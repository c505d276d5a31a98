"""Freezing blocks of a model, and finding them by name."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import keras

from merlin_models.blocks.symbolic import set_trainable
from merlin_models.layers import EmbeddingBagCollection


class Freezing:
    """A mixin for ``Model``: its blocks by name, and which of them are trained."""

    def _prepare_freezing(self) -> None:
        # In a namespace, so that Keras does not count the blocks twice. By id: (block, what was frozen in it before).
        self._frozen = types.SimpleNamespace(blocks={})

    def get_blocks_by_name(self, block_names: str | Sequence[str]) -> list[keras.layers.Layer]:
        """All blocks and layers, here or below, of any of the names: a layer's own, or its ``block_name``.

        Raises:
            ValueError: if a name finds none.
        """
        names = [block_names] if isinstance(block_names, str) else list(block_names)
        found: list[keras.layers.Layer] = []
        for name in names:
            own = [
                layer
                for layer in self._flatten_layers(include_self=False)
                if name in (layer.name, getattr(layer, "block_name", None))
            ]
            if not own:
                known = sorted({getattr(layer, "block_name", layer.name) for layer in self.blocks})
                raise ValueError(f"block_names must be names of blocks or layers, such as {known}. Received: {name!r}")
            found.extend(layer for layer in own if all(layer is not other for other in found))
        return found

    def freeze_blocks(self, blocks: Any) -> None:
        """Stops the training of blocks, from the next step on; batch normalization there uses its moving averages.

        Args:
            blocks: a block or a name, or several; a name freezes all blocks that :meth:`get_blocks_by_name` finds.
        """
        for block in self._named_or_given(blocks):
            if id(block) not in self._frozen.blocks:
                parts = [*block._flatten_layers(include_self=False), *block.variables]
                self._frozen.blocks[id(block)] = block, [part for part in parts if not part.trainable]
            set_trainable(block, False)
        self._forget_functions()

    def unfreeze_blocks(self, blocks: Any) -> None:
        """Trains blocks again; what was frozen within one before :meth:`freeze_blocks` stays so, and in a model that was
        loaded frozen tables that were made so. A block of tables itself trains all of them.

        An optimizer that was built while they were frozen does not know their weights: compile the model again then.
        """
        for block in self._named_or_given(blocks):
            _, before = self._frozen.blocks.pop(id(block), (block, _made_frozen(block)))
            set_trainable(block, True)
            for part in before:
                part.trainable = False
        self._forget_functions()

    def unfreeze_all_frozen_blocks(self) -> None:
        """Trains again what :meth:`freeze_blocks` of this object has frozen; not what was loaded frozen."""
        self.unfreeze_blocks([block for block, _ in reversed(self._frozen.blocks.values())])

    def _named_or_given(self, blocks: Any) -> list[keras.layers.Layer]:
        blocks = list(blocks) if isinstance(blocks, list | tuple) else [blocks]
        own = {id(layer) for layer in self._flatten_layers(include_self=False)}
        for block in blocks:
            if not isinstance(block, str) and id(block) not in own:
                raise ValueError(f"blocks must be names, or blocks of the model. Received: {block!r}")
        return [
            layer
            for block in blocks
            for layer in (self.get_blocks_by_name(block) if isinstance(block, str) else [block])
        ]

    def _forget_functions(self) -> None:
        """Compiled functions hold what was trainable when they were made."""
        self.train_function = self.test_function = self.predict_function = None


def _made_frozen(block: keras.layers.Layer) -> list[keras.Variable]:
    """The tables somewhere below a block that were made with ``trainable=False``."""
    own = getattr(block, "collection", block)
    return [
        layer.tables[name]
        for layer in block._flatten_layers()
        if isinstance(layer, EmbeddingBagCollection) and layer is not own
        for name, table in layer.table_configs.items()
        if not table.trainable
    ]
