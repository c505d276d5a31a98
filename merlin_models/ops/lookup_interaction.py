"""lookup_interaction: embedding_bag and dot_interaction in one op, in which pooled vectors never reach the GPU's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import tape as _tape

from merlin_models import _native
from merlin_models.ops.bags import Bags, op_inputs
from merlin_models.ops.dot_interaction import check_options, dot_interaction
from merlin_models.ops.embedding_bag import check_call, check_output_dtype, embedding_bag, text_of, unwrap
from merlin_models.ops.lookups import Lookup, current_recorder
from merlin_models.ops.portable import compiled_ops, is_portable

MAX_FEATURES, MAX_HOTNESS = 32, 16
_ATTRS = ("T", "table_of_feature", "splits_of_feature", "weights_of_feature", "combiners", "padding_ids", "names")
_OWN_ATTRS = ("dim", "order", "self_interaction", "concat_first", "pad_to", "tf32")


def why_not_fused(
    tables: Sequence[Any], features: Sequence[Bags], combiners: Sequence[str], first: Any, output_dtype: Any
) -> str:
    """Why :func:`lookup_interaction` has no kernel on CUDA for these, or "" if it has; arguments are as there.

    Args:
        tables, features, combiners, first: as of :func:`lookup_interaction`.
        output_dtype: as there, and not None.

    Returns:
        The reason, or an empty string.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import to_bags, why_not_fused
        >>> table, bags = tf.Variable(tf.ones((5, 8))), to_bags(tf.ragged.constant([[1, 2], [3]]))
        >>> why_not_fused([table], [bags], ["sum"], None, tf.float32)
        "a feature has row_splits, weights or the combiner 'max'"
    """
    output_dtype, table_dtype = tf.as_dtype(output_dtype), tf.as_dtype(unwrap(tables[0]).dtype)
    dims = {int(table.shape[1]) for table in tables}
    if not all(isinstance(unwrap(table), tf.Variable) for table in tables):
        return "tables are no variables"
    if len(dims) > 1 or (first is not None and first.shape[-1] not in dims):
        return "vectors differ in length"
    if len(features) + (first is not None) > MAX_FEATURES:
        return f"there are more than {MAX_FEATURES} features"
    if table_dtype not in (output_dtype, tf.float32):
        return f"tables are {table_dtype.name} and the output is {output_dtype.name}"
    (dim,) = dims
    if dim > 1024 or dim * min(table_dtype.size, output_dtype.size) % 16:
        return f"rows of {dim} elements are no multiple of 16 bytes, or have more than 1024"
    for bags, combiner in zip(features, combiners, strict=True):
        if bags.row_splits is not None or bags.weights is not None or combiner == "max":
            return "a feature has row_splits, weights or the combiner 'max'"
        hotness = bags.values.shape[1]
        if hotness is None or not 1 <= hotness <= MAX_HOTNESS:
            return f"a feature does not have 1 to {MAX_HOTNESS} ids an example"
    return ""


def fuses_here() -> bool:
    """Whether the fused kernel can run: there is a GPU, and the build has CUDA kernels."""
    return _native.has_cuda() and bool(tf.config.list_logical_devices("GPU"))


def lookup_interaction(
    tables: Sequence[Any],
    features: Sequence[Bags],
    table_of_feature: Sequence[int],
    combiners: Sequence[str],
    first: Any = None,
    *,
    output_dtype: Any = None,
    order: str = "lower",
    self_interaction: bool = False,
    concat_first: bool = False,
    pad_to: int = 1,
    precision: str | None = None,
    names: Sequence[str] | None = None,
) -> tf.Tensor:
    """``dot_interaction([first, *embedding_bag(tables, features)])`` in one op, to the bit.

    On a GPU rows go from the tables straight into the products: for one id a feature a third of the memory traffic of the
    two ops. The gradient looks the rows up once more. On a CPU the two kernels run one after the other.

    Args:
        tables: variables (rows, dim) of one dim, read in place.
        features, table_of_feature, combiners, names: as in :func:`merlin_models.ops.embedding_bag`; without weights and
            row_splits on a GPU: 1 to 16 ids an example in a dense block, pooled by sum, mean or sqrtn.
        first: (batch, dim), the first of the vectors, or None.
        output_dtype: float32, float16 or bfloat16; that of ``first``, or of the tables, if None.
        order, self_interaction, concat_first, pad_to, precision: as in :func:`merlin_models.ops.dot_interaction`.

    Returns:
        (batch, width), see :func:`merlin_models.ops.dot_interaction`.

    Raises:
        TypeError, ValueError: if the arguments disagree with the above.
        tf.errors.InvalidArgumentError: for what the kernel cannot take; :func:`why_not_fused` says so beforehand.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import lookup_interaction, to_bags
        >>> table = tf.Variable(tf.ones((5, 8)))
        >>> bags = [to_bags(tf.constant([[0], [1]])), to_bags(tf.constant([[2], [3]]))]
        >>> lookup_interaction([table], bags, [0, 0], ["sum", "sum"]).numpy().tolist()
        [[8.0], [8.0]]
    """
    given, tables = list(tables), [unwrap(table) for table in tables]
    if not all(isinstance(table, tf.Variable) for table in tables):
        raise TypeError("tables must be variables. Received: a tensor")
    names = [f"feature_{i}" for i in range(len(features))] if names is None else list(names)
    check_call(tables, features, table_of_feature, combiners, names)
    check_options(order, pad_to, precision)
    if output_dtype is None:
        output_dtype = tables[0].dtype if first is None else first.dtype
    output_dtype = check_output_dtype(output_dtype, tables[0].dtype)
    if precision is None:
        precision = "tf32" if tf.config.experimental.tensor_float_32_execution_enabled() else "float32"
    interaction = {"order": order, "self_interaction": self_interaction, "concat_first": concat_first, "pad_to": pad_to}
    if is_portable():
        lookups = {"output_dtype": output_dtype, "names": names}
        vectors = embedding_bag(tables, features, table_of_feature, combiners, **lookups)
        vectors = vectors if first is None else [tf.cast(first, output_dtype), *vectors]
        return dot_interaction(vectors, **interaction, precision=precision)
    recorder = current_recorder()
    recorded = recorder is not None and recorder.takes(given)
    if not recorded:
        for table in tables:
            _tape.variable_accessed(table)
    anchor = tf.zeros([0], output_dtype)
    if recorded:
        recorder.add(Lookup(given, list(features), list(table_of_feature), list(combiners), names, [anchor]))
    return compiled_ops().merlin_lookup_interaction(
        tables=[table.handle for table in tables],
        T=tables[0].dtype,
        **op_inputs(features),
        first=[] if first is None else [tf.cast(first, output_dtype)],
        anchor=anchor,
        table_of_feature=list(table_of_feature),
        combiners=list(combiners),
        names=names,
        dim=int(tables[0].shape[1]),
        **interaction,
        tf32=precision == "tf32",
        tables_trainable=not recorded,
    )


@tf.RegisterGradient("MerlinLookupInteraction")
def _gradient(op, grad):
    counts = [op.get_attr(f"num_{what}") for what in ("tables", "features", "splits", "weights")]
    parts, begin = [], 0
    for count in [*counts, 1, op.get_attr("num_first")]:
        parts.append(list(op.inputs)[begin : begin + count])
        begin += count
    tables, ids, splits, weights, (anchor,), first = parts
    attrs = {attr: op.get_attr(attr) for attr in (*_ATTRS, *_OWN_ATTRS)}
    attrs["combiners"] = [text_of(c) for c in attrs["combiners"]]
    attrs["names"] = [text_of(n) for n in attrs["names"]]
    attrs["order"] = text_of(attrs["order"])
    trainable = op.get_attr("tables_trainable")
    bag_inputs = {"tables": tables, "ids": ids, "row_splits": splits, "weights": weights}
    ops = _native.tf_ops()
    first_grads, pooled_grad = ops.merlin_lookup_interaction_grad(
        **bag_inputs, first=first, anchor=anchor, grad=grad, tables_trainable=trainable, **attrs
    )
    table_grads: list[Any] = [None] * len(tables)
    weights_grads: list[Any] = []
    if trainable or weights:
        unique_ids, rows, weights_grads = ops.merlin_resource_embedding_bag_grad(
            **bag_inputs, grad=[pooled_grad], concat=True, tables_trainable=trainable, **{a: attrs[a] for a in _ATTRS}
        )
    if trainable:
        shapes = [tf.raw_ops.VariableShape(input=table, out_type=tf.int64) for table in tables]
        table_grads = [tf.IndexedSlices(v, i, s) for v, i, s in zip(rows, unique_ids, shapes, strict=True)]
    others = [None] * (len(ids) + len(splits))
    return [
        *table_grads,
        *others,
        *(weights_grads if weights else []),
        None if trainable else pooled_grad,
        *first_grads,
    ]
