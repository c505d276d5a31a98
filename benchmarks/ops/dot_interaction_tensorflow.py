"""dot_interaction in TensorFlow: our op, TensorFlow's matmul and gather with and without XLA, and keras-rs."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Provider
from benchmarks.ops.dot_interaction_problem import CHECKED


class TensorFlowProvider(Provider):
    """Runs ``products(inputs)`` of a subclass in a tf.function, and its gradient."""

    runtime = "tensorflow"
    requires: tuple[str, ...] = ("tensorflow",)
    looks_up = False
    xla = False
    eager = False  # calls ops one by one, without a tf.function

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "looks nothing up" if case.rows and not self.looks_up else ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 4 * problem.batch * problem.features * (problem.dim + problem.features) * 4

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import tensorflow as tf

        self._tf, self._problem = tf, problem
        dtype = tf.as_dtype(problem.dtype)
        self._x = tf.tile(tf.cast(tf.constant(problem.vectors), dtype), [problem.repeats, 1, 1])
        self._grad = tf.tile(tf.cast(tf.constant(problem.grad), dtype), [problem.repeats, 1])
        if problem.rows:
            self._bottom = tf.identity(self._x[:, 0])
            values = tf.cast(tf.constant(problem.tables()), dtype)
            self._tables = [tf.Variable(values) for _ in range(problem.features - 1)]
            self._ids = [
                tf.identity(tf.constant(ids)) for ids in problem.ids
            ]  # tf.constant alone leaves int32 on the host
            del self._x
        self.prepare(problem)
        inputs = [self._bottom] if problem.rows else [self._x]

        def full() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                output = self.products(inputs[0])
            return output, tape.gradient(output, inputs[0], self._grad)  # an unused output would be pruned

        def forward() -> Any:
            return self.products(inputs[0])

        self._forward, self._full = forward, full
        # Concrete functions, as a call of tf.function looks through all that the graph has captured.
        if not self.eager:
            self._forward = tf.function(forward, jit_compile=self.xla).get_concrete_function()
        if not self.eager and mode == "full":
            self._full = tf.function(full, jit_compile=self.xla).get_concrete_function()

    def prepare(self, problem: Any) -> None:
        pass

    def products(self, x: Any) -> Any:
        raise NotImplementedError

    def forward(self, i: int) -> Any:
        return self._forward()

    def full(self, i: int, g: int) -> Any:
        return self._full()

    def outputs(self, output: Any) -> np.ndarray:
        return self._tf.cast(output[:CHECKED], self._tf.float32).numpy()

    def gradients(self, results: Any) -> np.ndarray:
        return self.outputs(results[1])


class MerlinTensorFlow(TensorFlowProvider):
    """Our op; where vectors are looked up, the fused one."""

    name = "merlin_tf"
    requires = ("tensorflow", "merlin_models._C")
    looks_up = True

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "the tables' gradient is not measured here" if case.rows and mode == "full" else ""

    def products(self, x: Any) -> Any:
        from merlin_models.ops import Bags, dot_interaction, lookup_interaction

        if not self._problem.rows:
            return dot_interaction(x)
        n = len(self._tables)
        return lookup_interaction(self._tables, [Bags(ids) for ids in self._ids], range(n), ["sum"] * n, x)


class MerlinTwoOps(MerlinTensorFlow):
    """One op that looks up and one that multiplies."""

    name = "merlin_tf_two_ops"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return super().unsupported(case, device, mode, optimizer) if case.rows else "there is nothing to look up"

    def products(self, x: Any) -> Any:
        from merlin_models.ops import Bags, dot_interaction, embedding_bag

        pooled = embedding_bag(self._tables, [Bags(ids) for ids in self._ids], combiners="sum", concat=True)
        shape = [self._problem.batch, self._problem.features - 1, self._problem.dim]
        return dot_interaction([x, self._tf.reshape(pooled, shape)])


class _Loop(MerlinTensorFlow):
    """Several lookups in one tf.function, as ``steps_per_execution`` has them: without the call of a function each.

    Each waits for the one before it. A few rows of each are returned, as TensorFlow leaves out ops without a state whose
    output nobody reads; these rows are views, which keep their outputs in memory.
    """

    steps_a_call = 8
    notes = "8 steps in a tf.function, whose outputs are all held"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if not case.rows:
            return "there is nothing to look up"
        if device == "cpu":
            return "lookups on a GPU: a call costs little beside the others"
        return super().unsupported(case, device, mode, optimizer)

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return self.steps_a_call * super().memory_bytes(problem, device, mode, optimizer)

    def products(self, x: Any) -> Any:
        done: list[Any] = []
        for _ in range(self.steps_a_call):
            with self._tf.control_dependencies(done[-1:]):
                done.append(super().products(x))
        return [output[:CHECKED] for output in done]

    def outputs(self, output: Any) -> np.ndarray:
        """Those of every step, one behind the other, (steps, samples, width)."""
        return self._tf.cast(self._tf.stack(output), self._tf.float32).numpy()


class MerlinLoop(_Loop):
    """The fused op, several times a call."""

    name = "merlin_tf_loop"


class MerlinTwoOpsLoop(_Loop, MerlinTwoOps):
    """The two ops, several times a call."""

    name = "merlin_tf_two_ops_loop"


class TensorFlowMatmul(TensorFlowProvider):
    """A batched matmul, and a gather of the triangle."""

    name = "tf"

    def prepare(self, problem: Any) -> None:
        rows, columns = np.tril_indices(problem.features, -1)
        self._places = self._tf.constant((rows * problem.features + columns).astype(np.int32))

    def products(self, x: Any) -> Any:
        tf, p = self._tf, self._problem
        square = tf.matmul(x, x, transpose_b=True)
        return tf.gather(tf.reshape(square, [p.batch, p.features * p.features]), self._places, axis=1)


class TensorFlowEager(TensorFlowMatmul):
    """The same, eager."""

    name = "tf_eager"
    eager = True


class TensorFlowXla(TensorFlowMatmul):
    """The same, compiled by XLA."""

    name = "tf_xla"
    xla = True


class KerasRs(TensorFlowProvider):
    """``keras_rs.layers.DotInteraction``."""

    name = "keras_rs"
    requires = ("tensorflow", "keras_rs")

    def prepare(self, problem: Any) -> None:
        import keras_rs

        self._layer = keras_rs.layers.DotInteraction(dtype=problem.dtype)

    def products(self, x: Any) -> Any:
        return self._layer(self._tf.unstack(x, axis=1))
