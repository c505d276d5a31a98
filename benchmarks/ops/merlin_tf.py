"""Ours inside TensorFlow: one op for all tables in a tf.function."""

from __future__ import annotations

from benchmarks.ops.peers_tensorflow import TensorFlowProvider


class MerlinTensorFlow(TensorFlowProvider):
    """``merlin_models.ops.embedding_bag``; updates are TensorFlow's raw ops on its unique rows."""

    name = "merlin_tf"
    requires = ("tensorflow", "merlin_models._C")
    grads_are_summed = True

    def pool(self, bags):
        from merlin_models.ops import Bags, embedding_bag

        features = [Bags(values, splits) for values, splits in bags]
        return embedding_bag(self._tables, features, combiners=self._problem.combiner)
