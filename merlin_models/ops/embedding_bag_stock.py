"""embedding_bag in stock TensorFlow ops, for portable graphs: as few ops as it takes, since each costs a call of a kernel.

Lists are prepared together. Their ids stand one after the other, behind each feature's an id that exists, in a bag of its own
behind the feature's bags: so each feature has a value in its last bag, and sums by sorted segments, which are twice as fast
on a CPU as unsorted ones, have a row for every bag. Only what reads and sums the rows is done feature by feature.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from merlin_models.ops.bags import Bags

# Sure to exist wherever a graph is loaded. What is decided there waits for a GPU once, not for each list.
HOST = "/device:CPU:0"


class _List(NamedTuple):
    """A feature's ids but for padding, with one more in a bag behind the others."""

    ids: tf.Tensor  # (n,)
    weights: tf.Tensor | None  # (n,)
    bags: tf.Tensor  # (n,), ascending
    divisors: dict[str, tf.Tensor]  # (num_bags + 1, 1) by combiner: "mean" without weights counts ids


def stock_embedding_bag(
    tables: Sequence[Any],
    features: Sequence[Bags],
    table_of_feature: Sequence[int],
    combiners: Sequence[str],
    names: Sequence[str],
) -> list[tf.Tensor]:
    """Of each feature (bags, dim), float32 or, of one id a bag, as the table; arguments are those of embedding_bag."""
    numbers = [f for f, bags in enumerate(features) if bags.row_splits is not None or bags.padding_id is not None]
    lists = {}
    if numbers:
        prepared = _prepare(
            [features[f] for f in numbers], [names[f] for f in numbers], {combiners[f] for f in numbers}
        )
        lists = dict(zip(numbers, prepared, strict=True))
    outputs = []
    for f, (bags, t, combiner, name) in enumerate(zip(features, table_of_feature, combiners, names, strict=True)):
        # What the error of an id out of range shows.
        name = re.sub("[^A-Za-z0-9_.]", "_", f"ids_of_{name}")
        if f in lists:
            outputs.append(_pooled_list(tables[t], lists[f], combiner, bags.values.shape, name))
        else:
            outputs.append(_pooled_matrix(tables[t], bags, combiner, name))
    return outputs


def _pooled_matrix(table: Any, bags: Bags, combiner: str, name: str) -> tf.Tensor:
    """Of ids (bags, length), all of which count."""
    ids, weights = bags.values, bags.weights
    rows = tf.gather(table, ids, name=name)
    if ids.shape[1] == 1 and weights is None:
        return tf.squeeze(rows, axis=1)
    rows = tf.cast(rows, tf.float32)
    length = tf.cast(tf.shape(ids)[1], tf.float32)
    if combiner == "max":
        return tf.where(length > 0, tf.reduce_max(rows, axis=1), 0.0)
    if weights is not None:
        rows = rows * weights[..., tf.newaxis]
    total = tf.reduce_sum(rows, axis=1)
    if combiner == "sum":
        return total
    if weights is None:
        return tf.math.divide_no_nan(total, length if combiner == "mean" else tf.sqrt(length))
    divisor = tf.reduce_sum(weights if combiner == "mean" else weights * weights, axis=1, keepdims=True)
    return tf.math.divide_no_nan(total, divisor if combiner == "mean" else tf.sqrt(divisor))


def _pooled_list(table: Any, given: _List, combiner: str, shape: tf.TensorShape, name: str) -> tf.Tensor:
    rows = tf.cast(tf.gather(table, given.ids, name=name), tf.float32)
    if combiner == "max":
        pooled = tf.where(given.divisors["mean"] > 0, tf.math.segment_max(rows, given.bags), 0.0)
    else:
        if given.weights is not None:
            rows = rows * given.weights[:, tf.newaxis]
        pooled = tf.math.segment_sum(rows, given.bags)
        if combiner != "sum":
            pooled = tf.math.divide_no_nan(pooled, given.divisors[combiner])
    pooled = pooled[:-1]
    return pooled if shape.rank == 1 or shape[0] is None else tf.ensure_shape(pooled, [shape[0], None])


def _prepare(features: list[Bags], names: list[str], combiners: set[str]) -> list[_List]:
    values, splits = zip(*map(_flat, features), strict=True)
    counts, sizes = (tf.stack([tf.size(each) for each in tensors]) for tensors in (values, splits))
    with tf.device(HOST):  # of each feature: where its bags end, and where its values begin
        ends = tf.cumsum(tf.cast(sizes, tf.int64))
        firsts = ends - tf.cast(sizes, tf.int64)
        bases = tf.cumsum(tf.cast(counts, tf.int64) + 1, exclusive=True)
        num_bags, num_values = ends[-1], bases[-1] + tf.cast(counts[-1], tf.int64) + 1
    # Of each bag: its feature, its number in it, and where it begins.
    feature = tf.searchsorted(ends, tf.range(num_bags), side="right")
    number = tf.range(num_bags) - tf.gather(firsts, feature)
    split = tf.concat(splits, axis=0)
    start = split + tf.gather(bases, feature)
    falls = (start[1:] < start[:-1]) & tf.equal(feature[1:], feature[:-1])
    falls = tf.math.unsorted_segment_sum(tf.cast(falls, tf.float32), feature[1:], len(features))
    check = _check(names, tf.gather(split, firsts), falls, tf.gather(split, ends - 1), counts)
    with tf.control_dependencies([check]):
        start = tf.identity(start)

    # Of each value: its bag, counted from 1 as subtracting int32 is the host's even on a GPU, and that one's number, int64
    # for the same reason: so are joining and splitting.
    dtype = tf.int64 if any(each.dtype == tf.int64 for each in values) else tf.int32
    ids = _joined([tf.cast(each, dtype) for each in values], 0)
    weights = _weights(features, values)
    bag = tf.searchsorted(start, tf.range(num_values), side="right")
    start = tf.concat([start, [num_values]], axis=0)
    with tf.device(HOST):
        lengths = counts + 1
    if any(bags.padding_id is not None for bags in features):
        kept = tf.where(_joined([*map(_is_kept, features, values)], True))[:, 0]
        ids, bag = tf.gather(ids, kept), tf.gather(bag, kept)
        weights = None if weights is None else tf.gather(weights, kept)
        start = tf.searchsorted(bag, tf.range(1, tf.cast(num_bags, tf.int32) + 2), out_type=tf.int64)
        with tf.device(HOST):
            lengths = tf.identity(tf.gather(start, ends) - tf.gather(start, firsts))
    place = tf.gather(tf.concat([tf.zeros([1], tf.int64), number], axis=0), bag)
    divisors = {}
    if combiners - {"sum"}:
        totals = tf.cast(start[1:] - start[:-1], tf.float32)
        divisors["mean"] = totals if weights is None else tf.math.segment_sum(weights, bag)[1:]
    if "sqrtn" in combiners:
        squares = totals if weights is None else tf.math.segment_sum(weights * weights, bag)[1:]
        divisors["sqrtn"] = tf.sqrt(squares)

    def of_each(tensor: tf.Tensor | None, sizes: tf.Tensor) -> list[Any]:
        return [None] * len(features) if tensor is None else tf.split(tensor, sizes, num=len(features))

    by_combiner = {name: of_each(each[:, tf.newaxis], sizes) for name, each in divisors.items()}
    return [
        _List(*parts, {name: each[f] for name, each in by_combiner.items()})
        for f, parts in enumerate(zip(*(of_each(x, lengths) for x in (ids, weights, place)), strict=True))
    ]


def _flat(bags: Bags) -> tuple[tf.Tensor, tf.Tensor]:
    """Values (n,) and row_splits, of a matrix too."""
    if bags.row_splits is not None:
        return bags.values, bags.row_splits
    num_bags, length = tf.unstack(tf.shape(bags.values, out_type=tf.int64))
    return tf.reshape(bags.values, [-1]), tf.range(num_bags + 1) * length


def _joined(parts: list[tf.Tensor], behind: Any) -> tf.Tensor:
    """One after the other, with ``behind`` after each."""
    behind = tf.constant([behind], parts[0].dtype)
    return tf.concat([x for part in parts for x in (part, behind)], axis=0)


def _is_kept(bags: Bags, ids: tf.Tensor) -> tf.Tensor:
    if bags.padding_id is None:
        return tf.ones_like(ids, tf.bool)
    return tf.not_equal(ids, tf.constant(bags.padding_id, ids.dtype))


def _weights(features: list[Bags], values: Sequence[tf.Tensor]) -> tf.Tensor | None:
    """Of all values, ones where a feature has none; None if none has any. Those behind the features' weigh nothing."""
    if all(bags.weights is None for bags in features):
        return None
    of_each = [
        tf.ones_like(ids, tf.float32) if bags.weights is None else tf.reshape(bags.weights, [-1])
        for bags, ids in zip(features, values, strict=True)
    ]
    return _joined(of_each, 0.0)


def _check(names: list[str], begin: tf.Tensor, falls: tf.Tensor, end: tf.Tensor, counts: tf.Tensor) -> tf.Operation:
    rules = [
        f"row_splits of {name} must begin with 0, not decrease and end with the number of ids. Received"
        for name in names
    ]
    seen = tf.stack([begin, tf.cast(falls, tf.int64), end, tf.cast(counts, tf.int64)], axis=1)
    with tf.device(HOST):
        seen = tf.identity(seen)
        fits = tf.equal(seen[:, 0], 0) & tf.equal(seen[:, 1], 0) & tf.equal(seen[:, 2], seen[:, 3])
        return assert_each(fits, tf.constant(rules), "first, how often they decrease, last, number of ids:", seen)


def assert_each(fits: tf.Tensor, rules: tf.Tensor, what: str, seen: tf.Tensor) -> tf.Operation:
    """In a graph, raises :class:`tf.errors.InvalidArgumentError` with the rule of the first that does not fit.

    Args:
        fits: (n,), bool.
        rules: (n,), strings that end with "Received".
        what: names the numbers of ``seen``.
        seen: (n, ...).
    """
    first = tf.argmin(tf.cast(fits, tf.int32))
    data = [tf.gather(rules, first), what, tf.gather(seen, first)]
    return tf.raw_ops.Assert(condition=tf.reduce_all(fits), data=data, summarize=8)
