"""Models: blocks that end in prediction tasks."""

from __future__ import annotations

from merlin_models.models.model import Model
from merlin_models.models.row_sparse_training import RowSparseTraining

__all__ = ["Model", "RowSparseTraining"]
