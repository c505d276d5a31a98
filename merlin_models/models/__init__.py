"""Models: blocks that end in prediction tasks."""

from __future__ import annotations

from merlin_models.models.model import Model

__all__ = ["Model"]
