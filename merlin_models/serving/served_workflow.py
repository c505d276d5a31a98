"""A workflow as it serves: every operator keeps all rows, and a row's nulls need no other rows beside them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pandas as pd


def served_workflow(workflow: Any) -> Any:
    """A copy of a fitted ``nvtabular.Workflow`` for few rows; its operators raise ValueError where they drop or add some.

    Each is asked, as the last one cannot tell: NVTabular joins branches of different lengths, and goes on with the raw
    rows where an operator leaves none.
    """
    from merlin.dag import iter_nodes
    from nvtabular.ops import Categorify

    workflow = copy.deepcopy(workflow)
    operators = {id(node.op): node.op for node in iter_nodes([workflow.output_node]) if node.op is not None}
    for operator in operators.values():
        if isinstance(operator, Categorify):
            operator.transform = functools.partial(_beside_a_value, operator.transform)
        operator.transform = functools.partial(_keeping_rows, operator.transform, type(operator).__name__)
    return workflow


def _keeping_rows(transform: Callable, name: str, selector: Any, frame: pd.DataFrame) -> pd.DataFrame:
    result = transform(selector, frame)
    rule = "A workflow that serves must keep every row"
    if len(result) != len(frame):
        raise ValueError(f"{rule}. Received: one whose {name} left {len(result)} of {len(frame)} rows")
    if name == "Groupby" and len(frame) > 1:  # as many groups as rows, in the order of their keys
        raise ValueError(f"{rule} in its place. Received: one whose {name} sorted {len(frame)} rows")
    return result


def _beside_a_value(transform: Callable, selector: Any, frame: pd.DataFrame) -> pd.DataFrame:
    """``Categorify`` tells lists by a column's first value, and fails where all are null, as in one row: it gets one more."""
    empty = [name for name in frame.columns if len(frame) and frame[name].isna().all()]
    if not empty:
        return transform(selector, frame)
    values = {name: 0 if pd.api.types.is_numeric_dtype(frame[name].dtype) else "" for name in empty}
    result = transform(selector, pd.concat([frame, frame.iloc[:1].fillna(values)], ignore_index=True))
    return result.iloc[:-1].set_index(frame.index)
