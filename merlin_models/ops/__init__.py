"""The ops: thin functions over the compiled kernels, each with a plain reference beside it."""

from __future__ import annotations

from merlin_models._native import raise_device_errors, tf_ops
from merlin_models.ops.bags import Bags, batch_of, to_bags
from merlin_models.ops.dot_interaction import dot_interaction, dot_interaction_reference
from merlin_models.ops.embedding_bag import embedding_bag, embedding_bag_reference
from merlin_models.ops.embedding_bag_update import embedding_bag_update, embedding_bag_update_reference
from merlin_models.ops.encode import encode_bags
from merlin_models.ops.inbatch_softmax import InbatchSoftmax, inbatch_softmax, inbatch_softmax_reference
from merlin_models.ops.lookup_interaction import lookup_interaction, why_not_fused
from merlin_models.ops.lookups import Lookup, LookupOutput, record_lookups
from merlin_models.ops.portable import is_portable, portable_ops
from merlin_models.ops.ragged import (
    append_to_rows,
    check_at_most,
    check_equal_lengths,
    check_lengths,
    is_ragged,
    items_of_padded,
    mask_like,
    positions_in_rows,
    ragged_where,
    repeat_for_items,
    row_lengths,
    select_positions,
    take_rows,
    to_dense,
    to_padded,
    to_ragged,
    to_sparse,
)
from merlin_models.ops.sampled_softmax import sampled_softmax
from merlin_models.ops.update_rule import Slot, UpdateRule

__all__ = [
    "Bags",
    "InbatchSoftmax",
    "Lookup",
    "LookupOutput",
    "Slot",
    "UpdateRule",
    "append_to_rows",
    "batch_of",
    "check_at_most",
    "check_equal_lengths",
    "check_lengths",
    "dot_interaction",
    "dot_interaction_reference",
    "embedding_bag",
    "embedding_bag_reference",
    "embedding_bag_update",
    "embedding_bag_update_reference",
    "encode_bags",
    "inbatch_softmax",
    "inbatch_softmax_reference",
    "is_portable",
    "is_ragged",
    "items_of_padded",
    "lookup_interaction",
    "mask_like",
    "portable_ops",
    "positions_in_rows",
    "ragged_where",
    "raise_device_errors",
    "record_lookups",
    "repeat_for_items",
    "row_lengths",
    "sampled_softmax",
    "select_positions",
    "take_rows",
    "to_bags",
    "to_dense",
    "to_padded",
    "to_ragged",
    "to_sparse",
    "why_not_fused",
]

tf_ops()  # registers the compiled ops, which SavedModels need before they are loaded
