"""MovieLens' ratings: found or downloaded, read in the formats of its releases, encoded for training."""

from merlin_models.datasets.movielens.files import VARIANTS, MovieLens, find_movielens, read_movielens
from merlin_models.datasets.movielens.prepare import get_movielens, movielens_workflow

__all__ = ["VARIANTS", "MovieLens", "find_movielens", "get_movielens", "movielens_workflow", "read_movielens"]
