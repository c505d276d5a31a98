"""Schemas: the columns of a data set with their tags, domains and properties, from which models are built."""

from __future__ import annotations

from merlin_models.schema.column import ColumnSchema, Domain
from merlin_models.schema.schema import Schema
from merlin_models.schema.tags import Tag, Tags

__all__ = ["ColumnSchema", "Domain", "Schema", "Tag", "Tags"]
