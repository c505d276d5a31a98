"""The factorizations of the library ``lightfm``, with columns by a schema."""

from __future__ import annotations

from typing import Any

import numpy as np

from merlin_models.schema import Schema
from merlin_models.wrappers.recommender import Recommender

__all__ = ["LightFM"]


class LightFM(Recommender):
    """A factorization with biases of users and items, trained for one of LightFM's losses.

    Args:
        schema, target_column: as of :class:`merlin_models.wrappers.recommender.Recommender`. The losses see 1 for a
            target above 0 and -1 for one below.
        epochs: passes over the rows.
        num_threads: of the training; with more than one, two runs differ.
        **params: of ``lightfm.LightFM``: loss, no_components, learning_rate, random_state, ...

    Raises:
        ValueError: also if epochs or num_threads are below 1.

    Example:
        >>> from merlin_models.lightfm import LightFM
        >>> from merlin_models.schema import Schema
        >>> model = LightFM(Schema.load("train"), loss="warp", epochs=5).fit("train")  # doctest: +SKIP
        >>> model.predict({"userId": [3, 7]}, k=10).items.shape  # doctest: +SKIP
        (2, 10)

    Reference:
        Kula, Metadata Embeddings for User and Item Cold-start Recommendations, 2015, https://arxiv.org/abs/1507.08439
    """

    def __init__(
        self, schema: Schema, *, target_column: str | None = None, epochs: int = 10, num_threads: int = 1, **params: Any
    ):
        for name, value in {"epochs": epochs, "num_threads": num_threads}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1. Received: {value!r}.")
        super().__init__(schema, target_column=target_column, epochs=epochs, num_threads=num_threads, **params)

    def build(self) -> Any:
        try:
            import lightfm
        except ImportError as error:
            raise ImportError(
                "merlin_models.lightfm needs lightfm: pip install 'merlin-models-keras[lightfm]'"
            ) from error
        params = {name: value for name, value in self.params.items() if name not in ("epochs", "num_threads")}
        return lightfm.LightFM(**params)

    def factorize(self, interactions: Any) -> tuple[Any, Any]:
        model = self.build()
        model.fit(interactions.sign(), epochs=self.params["epochs"], num_threads=self.params["num_threads"])
        users, items = model.user_embeddings, model.item_embeddings
        ones = (np.ones((len(each), 1), np.float32) for each in (users, items))
        return (
            np.hstack([users, model.user_biases[:, None], next(ones)]),
            np.hstack([items, next(ones), model.item_biases[:, None]]),
        )
