"""Data sets ready for training: folders of Parquet files with their schema, and generated rows of any schema."""

from merlin_models.datasets.criteo import get_criteo, synthetic_criteo
from merlin_models.datasets.folders import Splits
from merlin_models.datasets.synthetic import SyntheticData, generate_data
from merlin_models.loader.dataset import Dataset

__all__ = ["Dataset", "Splits", "SyntheticData", "generate_data", "get_criteo", "synthetic_criteo"]
