"""inbatch_softmax in TensorFlow: our op, and TensorFlow's own with the scores in memory, with and without XLA."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Provider
from benchmarks.ops.inbatch_softmax_problem import TEMPERATURE, InbatchSoftmaxProblem

LARGEST = 65_536  # of a batch whose scores fit
LARGEST_OF_A_KERNEL = 2**32  # scores


class TensorFlowProvider(Provider):
    """Runs ``losses(queries, candidates)`` of a subclass in a tf.function, and its gradient."""

    runtime = "tensorflow"
    requires: tuple[str, ...] = ("tensorflow",)
    xla = False
    eager = False  # calls ops one by one, without a tf.function

    def setup(self, problem: InbatchSoftmaxProblem, device: str, mode: str, optimizer: str) -> None:
        import tensorflow as tf

        self._tf, self._problem, self._training = tf, problem, mode == "full"
        dtype = tf.as_dtype(problem.dtype)
        vectors = [tf.cast(tf.constant(array), dtype) for array in (problem.queries(), problem.candidates())]
        self._ids, self._log_q = tf.identity(tf.constant(problem.ids())), tf.constant(problem.log_q())

        def full() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(vectors)
                loss = tf.reduce_mean(self.losses(*vectors))
            return loss, tape.gradient(loss, vectors)

        def forward() -> Any:
            return self.losses(*vectors)

        graphs = [tf.function(each, jit_compile=self.xla) for each in (forward, full)]
        self._forward, self._full = (forward, full) if self.eager else graphs

    def losses(self, queries: Any, candidates: Any) -> Any:
        raise NotImplementedError

    def forward(self, i: int) -> Any:
        return self._forward()

    def full(self, i: int, g: int) -> Any:
        return self._full()

    def outputs(self, losses: Any) -> np.ndarray:
        return losses.numpy()

    def gradients(self, results: Any) -> list[np.ndarray]:
        return [self._tf.cast(grad, self._tf.float32).numpy() for grad in results[1]]


class MerlinTensorFlow(TensorFlowProvider):
    """``merlin_models.ops.inbatch_softmax``."""

    name = "merlin_tf"
    requires = ("tensorflow", "merlin_models._C")

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 14 * problem.candidates_count * problem.dim * 4 + (1 << 24)

    def losses(self, queries: Any, candidates: Any) -> Any:
        from merlin_models.ops import inbatch_softmax

        return inbatch_softmax(
            queries,
            candidates,
            temperature=TEMPERATURE,
            candidate_ids=self._ids,
            candidate_log_q=None if self._problem.plain else self._log_q,
            training=self._training,
        ).loss


class TensorFlowMatmul(TensorFlowProvider):
    """``sparse_softmax_cross_entropy_with_logits`` of a product, masked."""

    name = "tf"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if case.batch > LARGEST:
            return f"scores of more than {LARGEST} queries do not fit"
        if device == "cuda" and not self.xla and case.batch**2 >= LARGEST_OF_A_KERNEL:
            return "TensorFlow fails to launch a kernel over 2^32 scores, and its process cannot use the GPU afterwards"
        return ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 6 * problem.batch * problem.candidates_count * 4

    def losses(self, queries: Any, candidates: Any) -> Any:
        tf = self._tf
        scores = tf.cast(tf.matmul(queries, candidates, transpose_b=True), tf.float32) / TEMPERATURE
        labels = tf.range(self._problem.batch)
        if not self._problem.plain:
            rows, columns = self._problem.batch, tf.range(self._problem.candidates_count)
            hits = (self._ids[:rows, tf.newaxis] == self._ids) & (labels[:, tf.newaxis] != columns)
            scores = tf.where(hits, -np.inf, scores - self._log_q)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)


class TensorFlowEager(TensorFlowMatmul):
    """The same, eager."""

    name = "tf_eager"
    eager = True


class TensorFlowXla(TensorFlowMatmul):
    """The same, compiled by XLA."""

    name = "tf_xla"
    xla = True
