"""Random rows for any schema, and the schemas of well-known data sets to draw them for."""

from merlin_models.datasets.synthetic.columns import parse_columns
from merlin_models.datasets.synthetic.data import SyntheticData
from merlin_models.datasets.synthetic.generate import generate_data
from merlin_models.datasets.synthetic.schemas import SCHEMA_NAMES, named_schema

__all__ = ["SCHEMA_NAMES", "SyntheticData", "generate_data", "named_schema", "parse_columns"]
