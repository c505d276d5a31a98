"""The import name of the older library, for its notebooks: everything lives in ``merlin_models.schema``."""

from __future__ import annotations

from merlin_models.schema import ColumnSchema, Schema, Tag, Tags

__all__ = ["ColumnSchema", "Schema", "Tag", "Tags"]
