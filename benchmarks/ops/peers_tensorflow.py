"""TensorFlow in its own best forms, and sparse optimizer steps written with its raw ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Provider
from benchmarks.ops.embedding_bag_problem import (
    ADAGRAD_START,
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
    TABLE_SCALE,
)
from benchmarks.ops.peers_torch import optimizer_state_factor


class SparseOptimizer:
    """Updates the rows of one table from their unique ids and summed gradients, inside a tf.function.

    SGD and Adagrad are one raw op each. TensorFlow has no sparse op for row-wise Adagrad and Adam: they are
    gathers, maths and scatters on the touched rows. ``is_summed`` says that ids are unique already.
    """

    def __init__(self, tf: Any, optimizer: str, table: Any, is_summed: bool = False) -> None:
        self._tf, self._optimizer, self._table, self._is_summed = tf, optimizer, table, is_summed
        shape = table.shape
        if optimizer == "adagrad":
            self._states = [tf.Variable(tf.fill(shape, tf.constant(ADAGRAD_START, table.dtype)))]
        elif optimizer == "rowwise_adagrad":
            self._states = [tf.Variable(tf.fill([shape[0], 1], ADAGRAD_START))]
        elif optimizer == "adam":
            self._states = [tf.Variable(tf.zeros(shape)) for _ in range(2)]
        else:
            self._states = []

    def apply(self, gradient: Any, step: Any) -> None:
        """Args: gradient: IndexedSlices of the table. step: float32 scalar, 1 in the first step."""
        tf, handle, dtype = self._tf, self._table.handle, self._table.dtype
        ids, rows = gradient.indices, gradient.values
        if self._optimizer == "sgd":
            tf.raw_ops.ResourceScatterAdd(resource=handle, indices=ids, updates=rows * tf.cast(-LEARNING_RATE, dtype))
            return
        if not self._is_summed:
            ids, position = tf.unique(ids)
            rows = tf.math.unsorted_segment_sum(rows, position, tf.size(ids))
        if self._optimizer == "adagrad":
            tf.raw_ops.ResourceSparseApplyAdagradV2(
                var=handle,
                accum=self._states[0].handle,
                lr=tf.cast(LEARNING_RATE, dtype),
                epsilon=tf.cast(EPSILON, dtype),
                grad=rows,
                indices=ids,
            )
            return
        rows = tf.cast(rows, tf.float32)
        if self._optimizer == "rowwise_adagrad":
            self._add(self._states[0], ids, tf.reduce_mean(rows * rows, axis=1, keepdims=True))
            change = rows / (tf.sqrt(tf.gather(self._states[0], ids)) + EPSILON)
        else:
            first, second = (tf.gather(state, ids) for state in self._states)
            first += (1 - BETA1) * (rows - first)
            second += (1 - BETA2) * (rows * rows - second)
            self._set(self._states[0], ids, first)
            self._set(self._states[1], ids, second)
            change = (first / (1 - BETA1**step)) / (tf.sqrt(second / (1 - BETA2**step)) + EPSILON)
        self._add(self._table, ids, tf.cast(-LEARNING_RATE * change, dtype))

    def _add(self, variable: Any, ids: Any, rows: Any) -> None:
        self._tf.raw_ops.ResourceScatterAdd(resource=variable.handle, indices=ids, updates=rows)

    def _set(self, variable: Any, ids: Any, rows: Any) -> None:
        self._tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=ids, updates=rows)


class TensorFlowProvider(Provider):
    """What the TensorFlow providers share: variables, inputs on the device, one tf.function a mode."""

    runtime = "tensorflow"
    requires = ("tensorflow",)
    jit_compile = False
    eager = False  # calls ops one by one, without a tf.function
    grads_are_summed = False

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return problem.table_bytes * (1 + optimizer_state_factor(optimizer))

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import tensorflow as tf

        self._tf, self._problem = tf, problem
        self._place = "GPU:0" if device == "cuda" else "CPU:0"
        with tf.device(self._place):
            self._tables = self.make_tables(problem)
            self._sets = [
                [tuple(tf.identity(tf.constant(array)) for array in bags) for bags in bags_of_set]
                for bags_of_set in problem.sets
            ]
            if mode != "forward":
                self._grads = [
                    [tf.identity(tf.cast(grad, problem.dtype)) for grad in problem.grads_of(g)]
                    for g in range(problem.num_grads)
                ]
            if mode == "update":
                self.make_optimizer(optimizer)
        self._functions: dict[tuple[str, int, int], Any] = {}

    def make_tables(self, problem: Any) -> list[Any]:
        shapes = zip(problem.rows, problem.dims, strict=True)
        return [self._tf.Variable(self.random_table(shape, problem.dtype)) for shape in shapes]

    def random_table(self, shape: tuple[int, int], dtype: str) -> Any:
        """Made in one graph, whose steps share memory: eagerly, three tables would exist for a while."""
        tf = self._tf

        @tf.function
        def make() -> Any:
            return tf.cast(tf.random.uniform(shape, -TABLE_SCALE, TABLE_SCALE, seed=3), dtype)

        return make.get_concrete_function()()

    def make_optimizer(self, optimizer: str) -> None:
        tf = self._tf
        self._step = tf.Variable(0.0)
        self._optimizers = [SparseOptimizer(tf, optimizer, table, self.grads_are_summed) for table in self._tables]

    def pool(self, bags: list[tuple[Any, Any]]) -> list[Any]:
        """Pooled outputs of all features; what a provider writes."""
        raise NotImplementedError

    def variables(self) -> list[Any]:
        return self._tables

    def pool_and_gradients(self, bags: list[tuple[Any, Any]], grads: list[Any]) -> tuple[list[Any], list[Any]]:
        """Outputs are returned too: a loss reads them, and unread ones would be pruned from the graph."""
        with self._tf.GradientTape() as tape:
            outputs = self.pool(bags)
        return outputs, tape.gradient(outputs, self.variables(), output_gradients=grads)

    def train_step(self, bags: list[tuple[Any, Any]], grads: list[Any]) -> list[Any]:
        step = self._step.assign_add(1.0)
        outputs, gradients = self.pool_and_gradients(bags, grads)
        for optimizer, gradient in zip(self._optimizers, gradients, strict=True):
            optimizer.apply(gradient, step)
        return outputs

    def _call(self, mode: str, i: int, g: int, function: Any, *arguments: Any) -> Any:
        """Calls a graph function made for each input set, which captures the set's tensors.

        As arguments, dozens of tensors cost more in Python than the op itself; a training loop that reads its
        data inside of the function does not pay that either.
        """
        if self.eager:
            return function(*arguments)
        if (mode, i, g) not in self._functions:
            traced = self._tf.function(lambda: function(*arguments), jit_compile=self.jit_compile)
            self._functions[mode, i, g] = traced.get_concrete_function()
        return self._functions[mode, i, g]()

    def forward(self, i: int) -> list[Any]:
        return self._call("forward", i, 0, self.pool, self._sets[i])

    def full(self, i: int, g: int) -> tuple[list[Any], list[Any]]:
        return self._call("full", i, g, self.pool_and_gradients, self._sets[i], self._grads[g])

    def update(self, i: int, g: int) -> Any:
        return self._call("update", i, g, self.train_step, self._sets[i], self._grads[g])

    def outputs(self, outputs: list[Any]) -> list[np.ndarray]:
        return [self._tf.cast(output, "float32").numpy() for output in outputs]

    def gradients(self, result: tuple[list[Any], list[Any]]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(grad.indices.numpy(), self._tf.cast(grad.values, "float32").numpy()) for grad in result[1]]

    def read_rows(self, t: int, ids: np.ndarray) -> np.ndarray:
        return self._tf.cast(self._tf.gather(self._tables[t], ids), "float32").numpy()


class SparseSteps(TensorFlowProvider):
    """A form of the lookup whose gradient is stepped by :class:`SparseOptimizer`."""

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if (device, mode, optimizer, case.dtype) == ("cuda", "update", "adagrad", "bfloat16"):
            return "TensorFlow has no sparse Adagrad of bfloat16 on a GPU"
        return super().unsupported(case, device, mode, optimizer)


class LookupSparse(SparseSteps):
    """``tf.nn.embedding_lookup_sparse`` on a RaggedTensor with ``allow_fast_lookup``.

    It gives no rows for empty bags at the end of a batch: where bags may be empty its outputs are padded.
    """

    name = "tf_lookup"

    def pool(self, bags):
        tf, problem = self._tf, self._problem
        outputs = []
        for (values, splits), table in zip(bags, self._tables, strict=True):
            ids = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
            output = tf.nn.embedding_lookup_sparse(table, ids, None, combiner=problem.combiner, allow_fast_lookup=True)
            if problem.case.ragged:
                output = tf.pad(output, [[0, problem.batch - tf.shape(output)[0]], [0, 0]])
            outputs.append(output)
        return outputs


class LookupSparseEager(LookupSparse):
    """The same, eager."""

    name = "tf_lookup_eager"
    eager = True


class GatherSegmentSum(SparseSteps):
    """``tf.gather`` and a segment sum, of the form that allows empty bags where bags differ in length."""

    name = "tf_segment"

    def pool(self, bags):
        tf, problem = self._tf, self._problem
        outputs = []
        for (values, splits), table in zip(bags, self._tables, strict=True):
            rows = tf.gather(table, values)
            bag_of_id = tf.RaggedTensor.from_row_splits(values, splits, validate=False).value_rowids()
            if problem.hots:
                reduce = {"sum": tf.math.segment_sum, "mean": tf.math.segment_mean}[problem.combiner]
                outputs.append(reduce(rows, bag_of_id))
            else:
                reduce = {"sum": tf.math.unsorted_segment_sum, "mean": tf.math.unsorted_segment_mean}
                outputs.append(reduce[problem.combiner](rows, bag_of_id, problem.batch))
        return outputs


class XlaGatherSum(TensorFlowProvider):
    """``tf.reduce_sum(tf.gather(table, ids))`` compiled by XLA: bags of one length only."""

    name = "tf_xla"
    jit_compile = True

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if case.ragged or case.ids == "movielens":
            return "XLA needs bags of one length"
        return "" if mode == "forward" else "XLA cannot compile a sparse update (its shapes depend on the ids)"

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        super().setup(problem, device, mode, optimizer)
        tf = self._tf
        self._sets = [
            [
                tf.identity(tf.reshape(values, [problem.batch, hot]))
                for (values, _), hot in zip(bags, problem.hots, strict=True)
            ]
            for bags in self._sets
        ]

    def pool(self, bags):
        tf = self._tf
        reduce = {"sum": tf.reduce_sum, "mean": tf.reduce_mean}[self._problem.combiner]
        return [reduce(tf.gather(table, ids), axis=1) for ids, table in zip(bags, self._tables, strict=True)]
