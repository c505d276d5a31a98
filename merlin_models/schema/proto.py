"""Columns to and from TensorFlow Metadata's protocol buffers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf import json_format, struct_pb2, text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from merlin_models.schema.column import ColumnSchema, Domain

_TYPES = {schema_pb2.INT: np.dtype(np.int64), schema_pb2.FLOAT: np.dtype(np.float32)}
_STRUCT_URL = "type.googleapis.com/google.protobuf.Struct"


def parse_text(text: str) -> schema_pb2.Schema:
    """Parses a schema in text format; fields that this version does not know are skipped.

    Raises:
        ValueError: if the text is no schema.
    """
    try:
        return text_format.Parse(text, schema_pb2.Schema(), allow_unknown_field=True)
    except text_format.ParseError as error:
        raise ValueError(f"The schema must be a tensorflow-metadata Schema in text format. {error}") from error


def parse_json(text: str) -> schema_pb2.Schema:
    """Parses a schema in JSON; fields that this version does not know are skipped.

    Raises:
        ValueError: if the text is no schema.
    """
    try:
        content = json.loads(text)
        for annotation in _annotations(content):
            for key in {"extraMetadata", "extra_metadata"} & set(annotation):
                if isinstance(annotation[key], list):
                    annotation[key] = [_typed(metadata) for metadata in annotation[key]]
        return json_format.ParseDict(content, schema_pb2.Schema(), ignore_unknown_fields=True)
    except (json.JSONDecodeError, json_format.ParseError) as error:
        raise ValueError(f"The schema must be a tensorflow-metadata Schema in JSON. {error}") from error


def _annotations(content: Any) -> Iterator[dict[str, Any]]:
    """Those of the features; what has another form is left for the parser to refuse."""
    features = content.get("feature", []) if isinstance(content, dict) else []
    for feature in features if isinstance(features, list) else []:
        annotation = feature.get("annotation", {}) if isinstance(feature, dict) else {}
        if isinstance(annotation, dict):
            yield annotation


def _typed(metadata: Any) -> Any:
    if not isinstance(metadata, dict) or "@type" in metadata:
        return metadata
    return {"@type": _STRUCT_URL, "value": metadata}


def column_from_proto(feature: schema_pb2.Feature) -> ColumnSchema:
    """One feature of the schema, its extra metadata decoded into properties."""
    properties: dict[str, Any] = {}
    for message in feature.annotation.extra_metadata:
        properties.update(json_format.MessageToDict(_unpack(message)))
    domains = {}
    for kind in ("int_domain", "float_domain"):
        if feature.WhichOneof("domain_info") != kind:
            continue
        domain = getattr(feature, kind)
        number = int if kind == "int_domain" else _float_of
        categorical = bool(getattr(domain, "is_categorical", False))
        domains[kind] = Domain(number(domain.min), number(domain.max), domain.name or None, categorical)
    value_count = None
    if feature.HasField("value_count"):
        value_count = (feature.value_count.min, feature.value_count.max)
    shape = tuple(dim.size for dim in feature.shape.dim) if feature.HasField("shape") else None
    dtype = _dtype(feature.type, properties)
    if dtype is not None and properties.get("dtype") == dtype.name:
        properties.pop("dtype")
    return ColumnSchema(
        feature.name,
        dtype=dtype,
        tags=tuple(feature.annotation.tag),
        value_count=value_count,
        shape=shape,
        properties=properties,
        **domains,
    )


def column_to_proto(column: ColumnSchema) -> schema_pb2.Feature:
    """The reverse of :func:`column_from_proto`."""
    feature = schema_pb2.Feature(name=column.name)
    properties = dict(column.properties)
    if column.dtype is not None:
        kind = column.dtype.kind
        feature.type = {"i": schema_pb2.INT, "u": schema_pb2.INT, "b": schema_pb2.INT, "f": schema_pb2.FLOAT}.get(
            kind, schema_pb2.BYTES
        )
        if _dtype(feature.type, {}) != column.dtype:
            properties["dtype"] = column.dtype.name
    if column.value_count is not None:
        feature.value_count.min, feature.value_count.max = column.value_count
    if column.shape is not None:
        feature.shape.SetInParent()
        for size in column.shape:
            feature.shape.dim.add(size=size)
    for kind in ("int_domain", "float_domain"):
        domain = getattr(column, kind)
        if domain is None:
            continue
        target = getattr(feature, kind)
        target.SetInParent()
        target.min, target.max = domain.min, domain.max
        if domain.name:
            target.name = domain.name
        if domain.is_categorical:
            target.is_categorical = True
    feature.annotation.tag.extend(column.tags)
    if properties:
        struct = struct_pb2.Struct()
        json_format.ParseDict(properties, struct)
        feature.annotation.extra_metadata.add().Pack(struct)
    return feature


def _float_of(number: float) -> float:
    """The shortest of the decimals that the file's 4 bytes stand for: 0.1 again where 0.1 was written."""
    return float(str(np.float32(number)))


def _unpack(message: Any) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    if message.type_url not in ("", _STRUCT_URL):
        return struct  # metadata of another tool
    struct.ParseFromString(message.value)
    return struct


def _dtype(kind: int, properties: dict[str, Any]) -> np.dtype | None:
    """The dtype of a feature: what the properties say (ours, or NVTabular's item size), else 64-bit ints, 32-bit floats."""
    name = properties.get("dtype")
    if isinstance(name, str) and re.fullmatch(r"(u?int|float)(8|16|32|64)|bool|object|str\d*", name):
        return np.dtype(name)
    size = properties.get("dtype_item_size")
    if kind in _TYPES and size in (8, 16, 32, 64) and not (kind == schema_pb2.FLOAT and size == 8):
        return np.dtype(f"{'int' if kind == schema_pb2.INT else 'float'}{int(size)}")
    if kind == schema_pb2.BYTES:
        return np.dtype(object)
    return _TYPES.get(kind)
