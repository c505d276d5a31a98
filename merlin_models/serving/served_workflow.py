"""A workflow as it serves: a prediction is that of its row only while every operator keeps all rows."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pandas as pd


def served_workflow(workflow: Any) -> Any:
    """A copy of a fitted ``nvtabular.Workflow`` whose operators raise ValueError where they drop or add rows.

    Each is asked, as the last one cannot tell: NVTabular joins branches of different lengths, and goes on with the raw
    rows where an operator leaves none.
    """
    from merlin.dag import iter_nodes

    workflow = copy.deepcopy(workflow)
    operators = {id(node.op): node.op for node in iter_nodes([workflow.output_node]) if node.op is not None}
    for operator in operators.values():
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
