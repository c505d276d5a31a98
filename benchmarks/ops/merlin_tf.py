"""Ours inside TensorFlow: one op for all tables in a tf.function."""

from __future__ import annotations

from typing import Any

from benchmarks.ops.embedding_bag_problem import ADAGRAD_START, BETA1, BETA2, EPSILON, LEARNING_RATE
from benchmarks.ops.peers_tensorflow import TensorFlowProvider


class MerlinTensorFlow(TensorFlowProvider):
    """``merlin_models.ops.embedding_bag``, and ``embedding_bag_update`` for a whole step: one op each."""

    name = "merlin_tf"
    requires = ("tensorflow", "merlin_models._C")
    grads_are_summed = True

    def _features(self, bags):
        from merlin_models.ops import Bags

        return [Bags(*arrays) for arrays in bags]

    def pool(self, bags):
        from merlin_models.ops import embedding_bag

        return embedding_bag(self._tables, self._features(bags), combiners=self._problem.combiner)

    def make_optimizer(self, optimizer):
        from merlin_models.ops import UpdateRule

        self._rule = UpdateRule(
            optimizer, beta_1=BETA1, beta_2=BETA2, epsilon=EPSILON, initial_accumulator_value=ADAGRAD_START
        )
        tf = self._tf
        self._step = tf.Variable(0, dtype=tf.int64)

        @tf.function
        def filled(shape, value):
            return tf.fill(shape, value)

        self._slots = [
            [tf.Variable(filled(slot.shape(*table.shape), slot.initial_value)) for slot in self._rule.slots()]
            for table in self._tables
        ]

    def train_step(self, bags, grads):
        from merlin_models.ops import embedding_bag_update

        outputs = self.pool(bags)
        embedding_bag_update(
            self._tables,
            self._slots,
            self._features(bags),
            grads,
            combiners=self._problem.combiner,
            rule=self._rule,
            learning_rate=LEARNING_RATE,
            step=self._step,
        )
        self._step.assign_add(1)
        return outputs


class MerlinTensorFlowDense(MerlinTensorFlow):
    """With ids as (batch, hot) blocks, where bags have one length."""

    name = "merlin_tf_dense"

    def unsupported(self, case, device, mode, optimizer):
        return "bags differ in length" if case.ragged or case.ids == "movielens" else ""

    def setup(self, problem, device, mode, optimizer):
        super().setup(problem, device, mode, optimizer)
        tf = self._tf
        with tf.device(self._place):
            self._sets = [[(tf.reshape(ids, [problem.batch, -1]),) for ids, _ in bags] for bags in self._sets]


class MerlinTensorFlowLoop(MerlinTensorFlowDense):
    """Several of these steps in one tf.function, as ``steps_per_execution`` has them: without the call of a function each."""

    name = "merlin_tf_loop"
    steps_a_call = 8
    notes = "8 steps in a tf.function"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device == "cpu" or mode == "full":
            return "steps on a GPU and forward passes alone: a call costs little beside the others"
        return super().unsupported(case, device, mode, optimizer)

    def call(self, mode: str, i: int, g: int) -> Any:
        tf = self._tf
        if mode not in self._functions:
            sets, grads = self._problem.num_sets, self._problem.num_grads

            @tf.function(autograph=False)
            def steps() -> Any:
                done: list[Any] = []
                for k in range(self.steps_a_call):
                    with tf.control_dependencies(done):
                        done = tf.nest.flatten(super(MerlinTensorFlowLoop, self).call(mode, k % sets, k % grads))
                return [output[:1] for output in done]

            self._functions[mode] = steps.get_concrete_function()
        return self._functions[mode]()
