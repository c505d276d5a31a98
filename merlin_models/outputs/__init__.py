"""Outputs: tasks under the names of Merlin Models' second API."""

from __future__ import annotations

from merlin_models.outputs.contrastive import ContrastiveOutput

__all__ = ["ContrastiveOutput"]
