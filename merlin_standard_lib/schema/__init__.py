"""``merlin_standard_lib.schema`` of the older library; see ``merlin_models.schema``."""

from __future__ import annotations

from merlin_models.schema import ColumnSchema, Schema, Tag, Tags

__all__ = ["ColumnSchema", "Schema", "Tag", "Tags"]
