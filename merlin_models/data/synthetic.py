"""The older name of ``merlin_models.datasets.synthetic``."""

from __future__ import annotations

from merlin_models.datasets.synthetic import SyntheticData, generate_data

__all__ = ["SyntheticData", "generate_data"]
