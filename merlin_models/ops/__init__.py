"""The ops: thin functions over the compiled kernels, each with a plain reference beside it."""

from __future__ import annotations

from merlin_models._native import raise_device_errors
from merlin_models.ops.bags import Bags, to_bags
from merlin_models.ops.embedding_bag import embedding_bag, embedding_bag_reference

__all__ = ["Bags", "embedding_bag", "embedding_bag_reference", "raise_device_errors", "to_bags"]
