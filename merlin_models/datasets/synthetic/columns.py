"""The notation in which the schemas of this package are kept: a line a column."""

from __future__ import annotations

import re

import numpy as np

from merlin_models.schema import ColumnSchema, Domain, Schema, Tags

_LINE = re.compile(
    r"(?P<name>\S+)\s+(?P<kind>[a-z]+\d*)(:(?P<domain>\w+))?"
    r"(\s+(?P<min>-?[\d.]*\d)\.\.(?P<max>-?\d[\d.]*))?(\s+x(?P<least>\d+)(\.\.(?P<most>\d+))?)?(?P<tags>(\s+[a-z_]+)*)\s*"
)
_KINDS = {
    "ids": (np.int64, (Tags.CATEGORICAL,)),
    "ids32": (np.int32, (Tags.CATEGORICAL,)),
    "key": (np.int64, ()),
    "int": (np.int64, ()),
    "integer": (np.int64, (Tags.CONTINUOUS,)),
    "float": (np.float32, (Tags.CONTINUOUS,)),
    "binary": (np.int64, (Tags.TARGET, Tags.BINARY_CLASSIFICATION)),
    "regression": (np.float32, (Tags.TARGET, Tags.REGRESSION)),
    "text": (object, ()),
}


def parse_columns(text: str) -> Schema:
    """Reads a schema in the notation of this package.

    A line is ``name kind[:domain] [min..max] [x<length> | x<shortest>..<longest>] [tags]``; ``x`` is for lists. Kinds:

    - ``ids``, categorical (``ids32``: in int32), and ``key``, ids that are no feature;
    - ``float`` and ``integer``, continuous; ``int``, with no tag of its own; ``text``;
    - the targets ``binary`` and ``regression``.

    Args:
        text: lines; empty ones are skipped.

    Returns:
        A :class:`Schema`, columns in the order of the lines.

    Raises:
        ValueError: if a line is not of that form.

    Example:
        >>> from merlin_models.datasets.synthetic.columns import parse_columns
        >>> schema = parse_columns("genres ids 0..18 x1..6 item")
        >>> schema["genres"].cardinality, schema["genres"].value_count, schema["genres"].tags
        (19, (1, 6), ('categorical', 'list', 'item'))
    """
    return Schema(_column(line) for line in text.splitlines() if line.strip())


def _column(line: str) -> ColumnSchema:
    found = _LINE.fullmatch(line.strip())
    if found is None or found["kind"] not in _KINDS:
        raise ValueError(
            "A line must be 'name kind[:domain] [min..max] [x<length>] [tags]' with a kind of "
            f"{', '.join(_KINDS)}. Received: {line.strip()!r}."
        )
    dtype, tags = _KINDS[found["kind"]]
    domains = {}
    low, high = ("0", "1") if found["kind"] == "binary" else (found["min"], found["max"])
    if low is not None:
        is_int = np.dtype(dtype).kind == "i"
        number = int if is_int else float
        is_categorical = found["kind"] in ("ids", "ids32", "key")
        domain = Domain(number(low), number(high), found["domain"] or found["name"], is_categorical)
        domains["int_domain" if is_int else "float_domain"] = domain
    value_count = None
    if found["least"]:
        value_count = (int(found["least"]), int(found["most"] or found["least"]))
        tags = (*tags, Tags.LIST)
    return ColumnSchema(
        found["name"], dtype=dtype, tags=(*tags, *found["tags"].split()), value_count=value_count, **domains
    )
