"""Records embedding_bag calls, so that an optimizer can step their tables without a gradient in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record

from merlin_models.ops.bags import Bags


@dataclasses.dataclass(frozen=True, eq=False)
class Lookup:
    """One recorded call of ``embedding_bag``.

    Attributes:
        tables: the variables, as they were passed.
        features, table_of_feature, combiners, names: of the call.
        outputs: what it returned: one tensor a feature, or one for all with their columns side by side.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import embedding_bag, record_lookups, to_bags
        >>> table = tf.Variable(tf.ones((5, 2)))
        >>> with tf.GradientTape() as tape, record_lookups(tape, lambda variable: True) as recorded:
        ...     outputs = embedding_bag([table], [to_bags(tf.constant([1, 2]))], names=["movie"])
        >>> recorded.lookups[0].names, recorded.lookups[0].combiners
        (['movie'], ['mean'])
    """

    tables: list[Any]
    features: list[Bags]
    table_of_feature: list[int]
    combiners: list[str]
    names: list[str]
    outputs: list[tf.Tensor]

    @property
    def places(self) -> list[tuple[int, int]]:
        """For each feature, which of the outputs has its columns, and its first column there."""
        if len(self.outputs) == len(self.features):
            return [(f, 0) for f in range(len(self.features))]
        places, column = [], 0
        for table in self.table_of_feature:
            places.append((0, column))
            column += self.tables[table].shape[1]
        return places


@dataclasses.dataclass(frozen=True, eq=False)
class LookupOutput:
    """An output of a lookup, in the place of a variable where gradients and variables come in pairs.

    Attributes:
        lookup: the :class:`Lookup`.
        index: which of its outputs.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import embedding_bag, record_lookups, to_bags
        >>> table = tf.Variable(tf.ones((5, 2)))
        >>> with tf.GradientTape() as tape, record_lookups(tape, lambda variable: True) as recorded:
        ...     outputs = embedding_bag([table], [to_bags(tf.constant([1, 2]))])
        >>> recorded.outputs()[0].tensor is outputs[0]
        True
    """

    lookup: Lookup
    index: int

    @property
    def tensor(self) -> tf.Tensor:
        return self.lookup.outputs[self.index]


class _Recorder:
    def __init__(self, tape: tf.GradientTape, is_table: Callable[[Any], bool]):
        self.tape, self.is_table, self.graph = tape, is_table, _graph()
        self.lookups: list[Lookup] = []

    def takes(self, tables: Sequence[Any]) -> bool:
        """Whether a call on these is to be recorded: tables to step, and frozen ones beside them."""
        if _graph() is not self.graph:
            return False  # inside a branch or a loop body, whose tensors nobody outside may use
        if not record.could_possibly_record():
            return False  # computed once more for the backward pass (keras.RematScope, tf.recompute_grad)
        stepped = [table for table in tables if self.is_table(table)]
        return bool(stepped) and all(self.is_table(table) or not table.trainable for table in tables)

    def add(self, lookup: Lookup) -> None:
        for output in lookup.outputs:
            self.tape.watch(output)
        self.lookups.append(lookup)

    def outputs(self) -> list[LookupOutput]:
        return [LookupOutput(lookup, i) for lookup in self.lookups for i in range(len(lookup.outputs))]


_current = threading.local()


def current_recorder() -> _Recorder | None:
    return getattr(_current, "recorder", None)


@contextlib.contextmanager
def record_lookups(tape: tf.GradientTape, is_table: Callable[[Any], bool]) -> Iterator[_Recorder]:
    """While active, calls of embedding_bag on variables for which ``is_table`` holds are recorded.

    Their tables get no gradient then: the tape watches the calls' outputs instead, and whoever recorded them passes the
    outputs' gradients with the lookups to the optimizer (``merlin_models.optimizers.RowSparse``). Calls whose tensors the
    tape cannot reach are not recorded, and their tables get a gradient as without: those in branches and loops, and those
    in ``keras.RematScope`` or ``tf.recompute_grad``. A second tape of the caller's, inside, has to watch the outputs.

    Args:
        tape: of the training step, active.
        is_table: says of a variable whether the optimizer steps it by rows.

    Yields:
        The recorder: ``lookups`` and ``outputs()`` have what was called until then.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import embedding_bag, record_lookups, to_bags
        >>> table = tf.Variable(tf.ones((5, 2)))
        >>> with tf.GradientTape() as tape, record_lookups(tape, lambda variable: True) as recorded:
        ...     loss = tf.reduce_sum(embedding_bag([table], [to_bags(tf.constant([1, 2]))])[0])
        >>> (output,) = recorded.outputs()
        >>> tape.gradient(loss, output.tensor).numpy().tolist()  # of what was looked up, not of the table
        [[1.0, 1.0], [1.0, 1.0]]
    """
    before = current_recorder()
    recorder = _current.recorder = _Recorder(tape, is_table)
    try:
        yield recorder
    finally:
        _current.recorder = before


def _graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
