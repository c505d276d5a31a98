"""The older name of ``merlin_models.datasets``, for its notebooks."""

from __future__ import annotations

from merlin_models.datasets import Dataset, SyntheticData, generate_data

__all__ = ["Dataset", "SyntheticData", "generate_data"]
