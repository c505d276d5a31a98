"""Criteo click logs, and data of their shape of any size: a label, 13 numbers and 26 ids a row."""

from merlin_models.datasets.criteo.columns import (
    CATEGORICAL,
    COLUMNS,
    CONTINUOUS,
    LABEL,
    MLPERF_HOTS,
    criteo_schema,
    mlperf_cardinalities,
)
from merlin_models.datasets.criteo.prepare import criteo_workflow, get_criteo
from merlin_models.datasets.criteo.synthetic import criteo_batch, synthetic_criteo
from merlin_models.datasets.criteo.text import find_text, read_text, text_to_parquet

__all__ = [
    "CATEGORICAL",
    "COLUMNS",
    "CONTINUOUS",
    "LABEL",
    "MLPERF_HOTS",
    "criteo_batch",
    "criteo_schema",
    "criteo_workflow",
    "find_text",
    "get_criteo",
    "mlperf_cardinalities",
    "read_text",
    "synthetic_criteo",
    "text_to_parquet",
]
