"""Serving: models as SavedModels, and with the NVTabular workflow that encodes their raw values."""

from __future__ import annotations

from merlin_models.serving.raw_model import RawModel, export_with_workflow, load_with_workflow
from merlin_models.serving.saved_model import check_portable

__all__ = ["RawModel", "check_portable", "export_with_workflow", "load_with_workflow"]
