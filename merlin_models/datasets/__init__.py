"""Data sets ready for training: folders of Parquet files with their schema, and generated rows of any schema."""

from merlin_models.datasets.aliccp import get_aliccp
from merlin_models.datasets.booking import get_booking
from merlin_models.datasets.criteo import get_criteo, synthetic_criteo
from merlin_models.datasets.dressipi import get_dressipi2022
from merlin_models.datasets.folders import Splits
from merlin_models.datasets.movielens import get_movielens
from merlin_models.datasets.synthetic import SyntheticData, generate_data
from merlin_models.loader.dataset import Dataset

__all__ = [
    "Dataset",
    "Splits",
    "SyntheticData",
    "generate_data",
    "get_aliccp",
    "get_booking",
    "get_criteo",
    "get_dressipi2022",
    "get_movielens",
    "synthetic_criteo",
]
