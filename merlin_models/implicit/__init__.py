"""Factorizations of the library ``implicit``, with columns by a schema."""

from __future__ import annotations

from typing import Any

from merlin_models.wrappers.recommender import Recommender

__all__ = ["AlternatingLeastSquares", "BayesianPersonalizedRanking"]


class _Implicit(Recommender):
    def factorize(self, interactions: Any) -> tuple[Any, Any]:
        model = self.build()
        model.fit(interactions, show_progress=False)
        vectors = model.user_factors, model.item_factors
        return tuple(each.to_numpy() if hasattr(each, "to_numpy") else each for each in vectors)


class AlternatingLeastSquares(_Implicit):
    """Weighted least squares over all users and items; the target is the confidence that a user likes an item.

    Args:
        schema, target_column: as of :class:`merlin_models.wrappers.recommender.Recommender`.
        **params: of ``implicit.als.AlternatingLeastSquares``: factors, regularization, alpha, iterations, random_state, ...

    Example:
        >>> from merlin_models.implicit import AlternatingLeastSquares
        >>> from merlin_models.schema import ColumnSchema, Schema, Tags
        >>> schema = Schema([
        ...     ColumnSchema.create_categorical("user", 2, tags=[Tags.USER_ID]),
        ...     ColumnSchema.create_categorical("item", 3, tags=[Tags.ITEM_ID]),
        ... ])
        >>> model = AlternatingLeastSquares(schema, factors=2, random_state=0, num_threads=1)
        >>> rows = {"user": [1, 1, 2, 2], "item": [1, 2, 2, 3]}
        >>> model.fit(rows).predict({"user": [2]}, k=1).items
        array([[1]])

    Reference:
        Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, 2008,
        https://doi.org/10.1109/ICDM.2008.22
    """

    def build(self) -> Any:
        return _import_implicit().als.AlternatingLeastSquares(**self.params)


class BayesianPersonalizedRanking(_Implicit):
    """A factorization that puts items which the user had before the others; the target's value does not matter.

    Args:
        schema, target_column: as of :class:`merlin_models.wrappers.recommender.Recommender`.
        **params: of ``implicit.bpr.BayesianPersonalizedRanking``: factors, learning_rate, regularization, iterations,
            random_state, ...

    Example:
        >>> from merlin_models.implicit import BayesianPersonalizedRanking
        >>> from merlin_models.schema import ColumnSchema, Schema, Tags
        >>> user = ColumnSchema.create_categorical("user", 2, tags=[Tags.USER_ID])
        >>> item = ColumnSchema.create_categorical("item", 3, tags=[Tags.ITEM_ID])
        >>> model = BayesianPersonalizedRanking(Schema([user, item]), factors=2, random_state=0, num_threads=1)
        >>> model.fit({"user": [1, 1, 2], "item": [1, 2, 3]}).predict({"user": [2]}, k=2).items.shape
        (1, 2)

    Reference:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009, https://arxiv.org/abs/1205.2618
    """

    def build(self) -> Any:
        return _import_implicit().bpr.BayesianPersonalizedRanking(**self.params)


def _import_implicit() -> Any:
    try:
        import implicit.als
        import implicit.bpr
    except ImportError as error:
        raise ImportError(
            "merlin_models.implicit needs implicit: pip install 'merlin-models-keras[implicit]'"
        ) from error
    return implicit
