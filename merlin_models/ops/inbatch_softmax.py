"""inbatch_softmax: softmax cross-entropy of queries over candidates that they share, without the matrix of their scores."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from merlin_models import _native
from merlin_models.ops.portable import compiled_ops

PRECISIONS = ("float32", "tf32")
MAX_DIM = 512


class InbatchSoftmax(NamedTuple):
    """What :func:`inbatch_softmax` gives for each query, (batch,) each.

    Attributes:
        loss: float32.
        log_sum_exp: float32; of the scores of the positive and of all negatives.
        positive_score: float32; loss is log_sum_exp - positive_score, but exact where it is small.
        rank: int64, how many negatives have a greater score than the positive: 0 is the best. Has no gradient.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import inbatch_softmax
        >>> output = inbatch_softmax(tf.eye(2), tf.eye(2))
        >>> output.rank.numpy().tolist(), output.positive_score.numpy().tolist()
        ([0, 0], [1.0, 1.0])
    """

    loss: tf.Tensor
    log_sum_exp: tf.Tensor
    positive_score: tf.Tensor
    rank: tf.Tensor


def inbatch_softmax(
    queries: Any,
    candidates: Any,
    *,
    positives: Any = None,
    temperature: Any = 1.0,
    positive_ids: Any = None,
    candidate_ids: Any = None,
    positive_log_q: Any = None,
    candidate_log_q: Any = None,
    loss_weights: Any = None,
    symmetric: bool = False,
    training: bool = True,
    precision: str | None = None,
) -> InbatchSoftmax:
    """Softmax cross-entropy of each query's positive among candidates that all queries share.

    With the scores s_ij = q_i . k_j / temperature - log_q_j, and p_i the score of query i's positive,

        loss_i = log(exp(p_i) + sum_j exp(s_ij)) - p_i    over all candidates j with another id than the positive.

    A candidate of the positive's id is an accidental hit, or the positive itself, and no negative. Scores exist in tiles
    only, in training on a CPU in strips of at most 16 MB, or 2 MB a thread: memory is O((batch + candidates) dim). The
    gradients of queries, positives, candidates, temperature and log_q have no gradients themselves. Labels are not smoothed.

    Args:
        queries: (batch, dim), float32, float16 or bfloat16; dim is 1 to 512, on a GPU fastest as a multiple of 8.
        candidates: (candidates, dim) of the same dtype. Without ``positives`` the first rows are the queries' positives:
            candidate i is that of query i, and there may be more candidates, negatives for all.
        positives: (batch, dim), each query's own positive, where the candidates are but negatives.
        temperature: positive number, or a scalar tensor or variable, which is given its gradient.
        positive_ids: (batch,), int32 or int64. By default the first of ``candidate_ids``; with ``positives`` to be given
            with these.
        candidate_ids: (candidates,), int32 or int64. By default all candidates are different, and differ from
            ``positives``.
        positive_log_q: (batch,), what is subtracted from the positives' scores. By default the first of
            ``candidate_log_q``; with ``positives`` to be given with these.
        candidate_log_q: (candidates,), logarithm of each candidate's probability to be sampled, or of what is
            proportional to it; subtracted from the scores.
        loss_weights: (batch,), what the caller will multiply ``loss`` with, or what is in proportion to it; ones by default,
            as in a mean. A matter of time: the op multiplies nothing with it, and has the right gradients whatever they
            turn out to be. On a CPU those in this proportion need no second look at the scores. Has no gradient, and no
            effect on a GPU.
        symmetric: the mean of this loss and that of the candidates among the queries, as CLIP has it. Needs as many
            candidates as queries. Both directions mask by ids, log_q is that of candidates only; the other results are
            those of the queries.
        training: False leaves out what the gradient needs: half of the time of a call on a GPU, two thirds on a CPU.
        precision: of float32 on a GPU. "float32": the accuracy of float32; "tf32": operands rounded to 10 bits, as
            TensorFlow's own products; None: "tf32" if
            ``tf.config.experimental.tensor_float_32_execution_enabled()``. Has no effect on a CPU.

    Returns:
        An :class:`InbatchSoftmax` of ``loss``, ``log_sum_exp``, ``positive_score`` and ``rank``. Weights of examples are
        for the caller to multiply ``loss`` with.

    Raises:
        ValueError, TypeError: if arguments disagree with the above.
        tf.errors.InvalidArgumentError: for shapes that are known only when the op runs.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import inbatch_softmax
        >>> users, items = tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.constant([[2.0, 0.0], [3.0, 0.0]])
        >>> output = inbatch_softmax(users, items, candidate_ids=tf.constant([7, 9]))
        >>> [round(value, 4) for value in output.loss.numpy().tolist()]
        [1.3133, 0.6931]
        >>> output.rank.numpy().tolist()
        [1, 0]
        >>> weights = tf.constant([1.0, 0.5])
        >>> output = inbatch_softmax(users, items, loss_weights=weights)
        >>> weighted = tf.reduce_sum(weights * output.loss) / tf.reduce_sum(weights)

    Reference:
        Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, RecSys 2019.
        Radford et al., `Learning Transferable Visual Models From Natural Language Supervision
        <https://arxiv.org/abs/2103.00020>`_, 2021 (symmetric).
        Dao et al., `FlashAttention <https://arxiv.org/abs/2205.14135>`_, 2022 (softmax of tiles).
    """
    queries, candidates = tf.convert_to_tensor(queries), tf.convert_to_tensor(candidates)
    own_positives = positives is not None
    if own_positives:
        positives = tf.convert_to_tensor(positives)
    _check_vectors(queries, candidates, positives)
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS} or None. Received: {precision!r}")
    if symmetric and own_positives:
        raise ValueError("symmetric must be False where positives are given. Received: True")
    if symmetric and _differ(queries.shape[0], candidates.shape[0]):
        raise ValueError(
            "symmetric must be False unless there are as many candidates as queries. "
            f"Received: True for {candidates.shape[0]} and {queries.shape[0]}"
        )
    aligned = symmetric or (queries.shape[0] is not None and queries.shape[0] == candidates.shape[0])
    batch = tf.shape(queries)[0]

    def first_rows(of_candidates: tf.Tensor) -> tf.Tensor:
        return of_candidates if aligned else of_candidates[:batch]

    positive_ids, candidate_ids = _ids(positive_ids, candidate_ids, queries, candidates, own_positives, first_rows)
    if own_positives and (positive_log_q is None) != (candidate_log_q is None):
        raise ValueError("positive_log_q and candidate_log_q must be given together where positives are. Received: one")
    if positive_log_q is not None and candidate_log_q is None:
        raise ValueError("candidate_log_q must be given where positive_log_q is. Received: None")
    candidate_log_q = float_row("candidate_log_q", candidate_log_q, candidates, "candidates")
    if positive_log_q is None and candidate_log_q is not None:
        positive_log_q = first_rows(candidate_log_q)
    positive_log_q = float_row("positive_log_q", positive_log_q, queries, "queries")
    loss_weights = float_row("loss_weights", loss_weights, queries, "queries")
    if not own_positives:
        positives = first_rows(candidates)
    scale = _scale(temperature)
    if precision is None:
        precision = "tf32" if tf.config.experimental.tensor_float_32_execution_enabled() else "float32"
    options = {
        "query_weights": [] if loss_weights is None else [loss_weights],
        "tf32": precision == "tf32",
        "with_mean": bool(training),
    }

    op = compiled_ops().merlin_inbatch_softmax
    loss, log_sum, positive_score, rank, *_ = op(
        queries=queries,
        positives=positives,
        candidates=candidates,
        scale=scale,
        positive_ids=positive_ids,
        candidate_ids=candidate_ids,
        positive_log_q=[] if positive_log_q is None else [positive_log_q],
        candidate_log_q=[] if candidate_log_q is None else [candidate_log_q],
        **options,
    )
    if symmetric:
        of_candidates = op(
            queries=candidates,
            positives=queries,
            candidates=queries,
            scale=scale,
            positive_ids=candidate_ids,
            candidate_ids=positive_ids,
            positive_log_q=[],
            candidate_log_q=[],
            with_rank=False,
            **options,
        )[0]
        loss = 0.5 * (loss + of_candidates)
    return InbatchSoftmax(loss, log_sum, positive_score, rank)


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def _check_vectors(queries: tf.Tensor, candidates: tf.Tensor, positives: tf.Tensor | None) -> None:
    given = {"queries": queries, "candidates": candidates}
    if positives is not None:
        given["positives"] = positives
    for name, tensor in given.items():
        if tensor.dtype not in (tf.float32, tf.float16, tf.bfloat16):
            raise TypeError(f"{name} must be float32, float16 or bfloat16. Received: {tensor.dtype.name}")
        if tensor.dtype != queries.dtype:
            raise TypeError(
                f"{name} must have the dtype of queries, {queries.dtype.name}. Received: {tensor.dtype.name}"
            )
        if tensor.shape.rank not in (2, None):
            raise ValueError(f"{name} must have rank 2. Received shape: {tensor.shape}")
    shapes = {name: tensor.shape.with_rank(2).as_list() for name, tensor in given.items()}
    for name, shape in shapes.items():
        if _differ(shape[1], shapes["queries"][1]):
            raise ValueError(
                f"{name} must have the last dimension of queries, {shapes['queries'][1]}. Received: {shape[1]}"
            )
        if shape[1] is not None and not 1 <= shape[1] <= MAX_DIM:
            raise ValueError(f"The last dimension of {name} must be in [1, {MAX_DIM}]. Received: {shape[1]}")
    batch, count = shapes["queries"][0], shapes["candidates"][0]
    if positives is None and batch is not None and count is not None and count < batch:
        raise ValueError(f"candidates must be at least as many as queries, {batch}. Received: {count}")
    if positives is not None and _differ(shapes["positives"][0], batch):
        raise ValueError(f"positives must be as many as queries, {batch}. Received: {shapes['positives'][0]}")


def float_row(name: str, values: Any, vectors: tf.Tensor, of: str) -> tf.Tensor | None:
    """``values`` as one float32 number for each of ``vectors``."""
    if values is None:
        return None
    values = tf.convert_to_tensor(values)
    if not values.dtype.is_floating:
        raise TypeError(f"{name} must be of a floating dtype. Received: {values.dtype.name}")
    return tf.cast(one_each(name, values, vectors, of), tf.float32)


def one_each(name: str, values: tf.Tensor, vectors: tf.Tensor, of: str) -> tf.Tensor:
    """``values``, checked to be one for each of ``vectors``, the argument ``of``."""
    if values.shape.rank not in (1, None):
        raise ValueError(f"{name} must have rank 1. Received shape: {values.shape}")
    if values.shape.rank == 1 and _differ(values.shape[0], vectors.shape[0]):
        raise ValueError(f"{name} must be as many as {of}, {vectors.shape[0]}. Received: {values.shape[0]}")
    return values


def integer_ids(name: str, ids: Any) -> tf.Tensor:
    """``ids`` as int64; raises TypeError for other than integers."""
    ids = tf.convert_to_tensor(ids)
    if ids.dtype not in (tf.int32, tf.int64):
        raise TypeError(f"{name} must be int32 or int64. Received: {ids.dtype.name}")
    return tf.cast(ids, tf.int64)


def _ids(positive_ids, candidate_ids, queries, candidates, own_positives, first_rows) -> tuple[tf.Tensor, tf.Tensor]:
    if positive_ids is not None and candidate_ids is None:
        raise ValueError("candidate_ids must be given where positive_ids are. Received: None")
    if candidate_ids is None:
        count, batch = (tf.shape(tensor, out_type=tf.int64)[0] for tensor in (candidates, queries))
        return (tf.fill([batch], tf.constant(-1, tf.int64)) if own_positives else tf.range(batch)), tf.range(count)
    candidate_ids = one_each("candidate_ids", integer_ids("candidate_ids", candidate_ids), candidates, "candidates")
    if positive_ids is None:
        if own_positives:
            raise ValueError("positive_ids must be given with candidate_ids where positives are. Received: None")
        return first_rows(candidate_ids), candidate_ids
    return one_each("positive_ids", integer_ids("positive_ids", positive_ids), queries, "queries"), candidate_ids


def _scale(temperature: Any) -> tf.Tensor:
    """1 / temperature, a float32 scalar."""
    if isinstance(temperature, int | float | np.floating | np.integer) and not isinstance(temperature, bool):
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature must be a positive number. Received: {temperature!r}")
        return tf.constant(1.0 / float(temperature), tf.float32)
    temperature = tf.convert_to_tensor(temperature)
    if not temperature.dtype.is_floating or temperature.shape.rank not in (0, None):
        raise ValueError(
            "temperature must be a number or a floating scalar. "
            f"Received: {temperature.dtype.name} of shape {temperature.shape}"
        )
    return tf.math.reciprocal(tf.cast(temperature, tf.float32))


@tf.RegisterGradient("MerlinInbatchSoftmax")
def _gradient(op, loss_grad, log_sum_grad, positive_score_grad, *_):
    if not op.get_attr("with_mean"):
        raise ValueError("training must be True where a gradient of inbatch_softmax is asked for. Received: False")
    # Of a gathered or masked result they are tf.IndexedSlices.
    loss_grad, log_sum_grad, positive_score_grad = map(
        tf.convert_to_tensor, (loss_grad, log_sum_grad, positive_score_grad)
    )
    inputs, end = list(op.inputs), 6
    lists = {}
    for name in ("positive_log_q", "candidate_log_q", "query_weights"):
        begin, end = end, end + op.get_attr(f"num_{name}")
        lists[name] = inputs[begin:end]
    grads = _native.tf_ops().merlin_inbatch_softmax_grad(
        queries=inputs[0],
        positives=inputs[1],
        candidates=inputs[2],
        scale=inputs[3],
        positive_ids=inputs[4],
        candidate_ids=inputs[5],
        **lists,
        log_sum=op.outputs[1],
        positive_score=op.outputs[2],
        mean=op.outputs[4],
        log_sum_grad=loss_grad + log_sum_grad,
        positive_score_grad=positive_score_grad - loss_grad,
        candidate_sums=op.outputs[5],
        candidate_weights=op.outputs[6],
        tf32=op.get_attr("tf32"),
    )
    queries, positives, candidates, scale, positive_log_q, candidate_log_q = grads
    return [queries, positives, candidates, scale, None, None, *positive_log_q, *candidate_log_q] + [None] * len(
        lists["query_weights"]
    )


def inbatch_softmax_reference(
    queries: np.ndarray,
    candidates: np.ndarray,
    loss_grad: np.ndarray | None = None,
    log_sum_exp_grad: np.ndarray | None = None,
    positive_score_grad: np.ndarray | None = None,
    *,
    positives: np.ndarray | None = None,
    temperature: float = 1.0,
    positive_ids: np.ndarray | None = None,
    candidate_ids: np.ndarray | None = None,
    positive_log_q: np.ndarray | None = None,
    candidate_log_q: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same maths in NumPy and float64, with the matrix of scores: what tests and benchmarks compare with.

    Args:
        queries, candidates, positives, temperature, positive_ids, candidate_ids, positive_log_q, candidate_log_q: as in
            :func:`inbatch_softmax`.
        loss_grad, log_sum_exp_grad, positive_score_grad: upstream gradients, (batch,) each; ones, zeros and zeros if None.

    Returns:
        The results by name, and the gradients by the arguments' names; that of "temperature" is a number.

    Example:
        >>> import numpy as np
        >>> from merlin_models.ops import inbatch_softmax_reference
        >>> results, grads = inbatch_softmax_reference(np.eye(2), np.eye(2))
        >>> results["loss"].round(4).tolist(), sorted(grads)
        ([0.3133, 0.3133], ['candidate_log_q', 'candidates', 'positive_log_q', 'positives', 'queries', 'temperature'])
    """
    q, k = np.asarray(queries, np.float64), np.asarray(candidates, np.float64)
    batch, count = len(q), len(k)
    if positives is None:
        p = k[:batch]
        candidate_ids = np.arange(count) if candidate_ids is None else candidate_ids
        positive_ids = candidate_ids[:batch] if positive_ids is None else positive_ids
        positive_log_q = (
            candidate_log_q[:batch] if positive_log_q is None and candidate_log_q is not None else positive_log_q
        )
    else:
        p = np.asarray(positives, np.float64)
        if candidate_ids is None:
            candidate_ids, positive_ids = np.arange(count), np.full(batch, -1)
    positive_log_q = np.zeros(batch) if positive_log_q is None else np.asarray(positive_log_q, np.float64)
    candidate_log_q = np.zeros(count) if candidate_log_q is None else np.asarray(candidate_log_q, np.float64)
    scores = q @ k.T / temperature - candidate_log_q
    scores[np.asarray(positive_ids)[:, np.newaxis] == np.asarray(candidate_ids)] = -np.inf
    positive = (q * p).sum(axis=1) / temperature - positive_log_q
    others = np.logaddexp.reduce(scores, axis=1, initial=-np.inf)
    log_sum, loss = np.logaddexp(positive, others), np.logaddexp(0.0, others - positive)
    outputs = {
        "loss": loss,
        "log_sum_exp": log_sum,
        "positive_score": positive,
        "rank": (scores > positive[:, np.newaxis]).sum(axis=1),
    }
    zeros, loss_grad = np.zeros(batch), np.ones(batch) if loss_grad is None else np.asarray(loss_grad, np.float64)
    a = loss_grad + (zeros if log_sum_exp_grad is None else log_sum_exp_grad)
    b = (zeros if positive_score_grad is None else positive_score_grad) - loss_grad
    weights = a[:, np.newaxis] * np.exp(scores - log_sum[:, np.newaxis])
    own = a * np.exp(-loss) + b
    scaled = weights @ k + own[:, np.newaxis] * p  # the gradient of the queries, times the temperature
    grads = {
        "queries": scaled / temperature,
        "positives": own[:, np.newaxis] * q / temperature,
        "candidates": weights.T @ q / temperature,
        "temperature": -(q * scaled).sum() / temperature**2,
        "positive_log_q": -own,
        "candidate_log_q": -weights.sum(axis=0),
    }
    return outputs, grads
