"""loss_registry: losses on logits by their names."""

from __future__ import annotations

import inspect

import keras

from merlin_models.blocks.registry import Registry

LossType = str | keras.losses.Loss | type[keras.losses.Loss]


class LossRegistry(Registry):
    """A registry that makes losses, too.

    Example:
        >>> import merlin_models.tf as ml
        >>> ml.losses.loss_registry.parse("bpr-max").reg_lambda
        1.0
    """

    def parse(self, loss: LossType) -> keras.losses.Loss:
        """A loss object from an object, a class or a registered name.

        Raises:
            KeyError: for an unknown name.
            TypeError: for anything else.
        """
        if isinstance(loss, str):
            loss = self.get(loss)
        if inspect.isclass(loss) and issubclass(loss, keras.losses.Loss):
            loss = loss()
        if not isinstance(loss, keras.losses.Loss):
            raise TypeError(f"A loss must be a Keras loss, its class or its name. Received: {loss!r}")
        return loss


loss_registry = LossRegistry("loss")
