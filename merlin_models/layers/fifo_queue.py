"""FIFOQueue: the newest elements of a stream, in variables that are saved with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="merlin_models")
class FIFOQueue(keras.layers.Layer):
    """A queue of bounded size: where it is full, the oldest elements make room for new ones.

    A place in the queue is counted from its oldest element, as :meth:`list_all` gives them. All methods run eagerly and in
    graphs; :meth:`list_all` and :meth:`dequeue_many` have shapes that depend on the state, so XLA cannot compile them.

    Args:
        capacity: the largest number of elements.
        dims: shape of an element.
        dtype: of the elements.
        initialize_tensor: (any number, *dims), the first elements; an initial state, not part of the config.

    Example:
        >>> import numpy as np
        >>> from merlin_models.layers import FIFOQueue
        >>> queue = FIFOQueue(capacity=3, dtype="int64")
        >>> queue.enqueue_many(np.array([7, 8, 9, 2**33 + 1]))
        >>> queue.list_all().numpy().tolist(), queue.index_of(np.array([9, 7])).numpy().tolist()
        ([8, 9, 8589934593], [1, -1])
    """

    def __init__(
        self,
        capacity: int,
        dims: Sequence[int] = (),
        dtype: str = "float32",
        initialize_tensor: Any = None,
        name: str | None = None,
    ):
        super().__init__(name=name, trainable=False, autocast=False)
        if not isinstance(capacity, int) or capacity < 1:
            raise ValueError(f"capacity must be at least 1. Received: {capacity}")
        self.capacity, self.dims = capacity, tuple(int(size) for size in dims)
        self.element_dtype = keras.backend.standardize_dtype(dtype)
        self.supports_jit = False
        self.storage = self._state("storage", (capacity, *self.dims), self.element_dtype)
        self._first = self._state("first", (), "int64")
        self._count = self._state("count", (), "int64")
        self.built = True
        if initialize_tensor is not None:
            self.enqueue_many(initialize_tensor)

    def _state(self, name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
        )

    # ---- elements in and out ----

    def enqueue(self, value: Any) -> None:
        """Adds one element, of shape ``dims``."""
        self.enqueue_many(ops.expand_dims(value, 0))

    def enqueue_many(self, values: Any) -> None:
        """Adds elements (any number, *dims), the last of them being the newest.

        Raises:
            ValueError: if their shape is another one.
        """
        values = ops.convert_to_tensor(values)
        if tuple(values.shape[1:]) != self.dims or not len(values.shape):
            raise ValueError(f"values must have the shape (any, *{self.dims}). Received: {tuple(values.shape)}")
        values = ops.cast(values[-self.capacity :], self.element_dtype)
        added = ops.cast(ops.shape(values)[0], "int64")
        places = self._storage_places(self._count + ops.arange(added, dtype="int64"))
        self.storage.assign(ops.scatter_update(self.storage, ops.expand_dims(places, -1), values))
        count = self._count + added
        pushed_out = ops.maximum(count - self.capacity, 0)
        self._first.assign(ops.mod(self._first + pushed_out, self.capacity))
        self._count.assign(count - pushed_out)

    def dequeue(self) -> Any:
        """Takes the oldest element out. An empty queue is an error of the backend's indexing."""
        return self.dequeue_many(1)[0]

    def dequeue_many(self, number: Any) -> Any:
        """Takes the oldest elements out, ``number`` or all there are."""
        number = ops.minimum(ops.cast(number, "int64"), self._count)
        values = ops.take(self.storage, self._storage_places(ops.arange(number, dtype="int64")), axis=0)
        self._first.assign(ops.mod(self._first + number, self.capacity))
        self._count.assign(self._count - number)
        return values

    def clear(self) -> None:
        """Takes all elements out."""
        self._first.assign(0)
        self._count.assign(0)

    # ---- looking ----

    def list_all(self) -> Any:
        """All elements (count, *dims), the oldest first."""
        return ops.take(self.storage, self._storage_places(ops.arange(self._count, dtype="int64")), axis=0)

    def count(self) -> Any:
        """The number of elements, a scalar int64."""
        return ops.convert_to_tensor(self._count)

    @property
    def at_full_capacity(self) -> Any:
        """Whether the next element pushes one out, a scalar bool."""
        return self._count >= self.capacity

    def index_of(self, values: Any) -> Any:
        """The place of the oldest element that is equal to each value; -1 where there is none.

        Sorts the queue, and needs memory for neither all pairs nor a table of all ids.

        Args:
            values: (...), integers, of a queue of integers with ``dims=()``.

        Returns:
            (...) int64.

        Raises:
            ValueError: for another queue.
        """
        if self.dims or "int" not in self.element_dtype:
            raise ValueError(
                "index_of must be called on a queue of integers with dims=(). "
                f"Received: {self.element_dtype} with dims={self.dims}"
            )
        values = ops.cast(values, self.element_dtype)
        everything = ops.arange(self.capacity, dtype="int64")
        elements = ops.take(self.storage, self._storage_places(everything), axis=0)
        largest = ops.cast(np.iinfo(self.element_dtype).max, self.element_dtype)
        # Unused places come last; sorting keeps the order of equal values.
        elements = ops.where(everything < self._count, elements, largest)
        order = ops.argsort(elements)
        flat = ops.reshape(values, (-1,))
        at = ops.minimum(ops.cast(ops.searchsorted(ops.take(elements, order), flat), "int32"), self.capacity - 1)
        places = ops.cast(ops.take(order, at), "int64")
        found = (ops.take(elements, places) == flat) & (places < self._count)
        return ops.reshape(ops.where(found, places, -1), ops.shape(values))

    def get_values_by_indices(self, indices: Any) -> Any:
        """The elements (..., *dims) at places (...)."""
        return ops.take(self.storage, self._storage_places(ops.cast(indices, "int64")), axis=0)

    def update_by_indices(self, indices: Any, values: Any) -> None:
        """Replaces the elements at places (number,), each at most once, by values (number, *dims)."""
        places = ops.expand_dims(self._storage_places(ops.cast(indices, "int64")), -1)
        self.storage.assign(ops.scatter_update(self.storage, places, ops.cast(values, self.element_dtype)))

    def _storage_places(self, places: Any) -> Any:
        return ops.mod(self._first + places, self.capacity)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "capacity": self.capacity, "dims": list(self.dims), "dtype": self.element_dtype}
