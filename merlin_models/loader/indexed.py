"""One order of batches read by index, as Keras does it. No TensorFlow here."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from merlin_models.loader.columns import Column
from merlin_models.loader.epochs import EpochReader

IDLE_SECONDS = 30.0
NUM_SAMPLES = 2


class IndexedEpoch:
    """Batches of one order by index, with a note of which were handed out. Thread-safe.

    With `renumber` the batches are numbered in the order in which their indices are first asked for: any
    order of access then reads the files from front to back, and each index keeps its batch. Keras learns
    shapes from some batches before an epoch and asks for them again within it; these are remembered.

    Data and threads go with the last outstanding batch, and after `IDLE_SECONDS` without access: Keras does
    not say when it leaves an epoch halfway, and TensorFlow never lets go of a data set once given to `fit`. They go with an
    error, too: what is asked for next is read anew.

    Args:
        open_reader: makes the reader, on the first access.
        num_batches: batches of the epoch.
        renumber: whether the order is random anyway, so that batches may be renumbered.
    """

    def __init__(self, open_reader: Callable[[], EpochReader], num_batches: int, renumber: bool):
        self._open_reader = open_reader
        self._num_batches = num_batches
        self._renumber = renumber
        self._reader: EpochReader | None = None
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._begun = False
        self._samples: dict[int, dict[str, Column]] = {}
        self._positions: dict[int, int] = {}
        self._served: set[int] = set()
        self._exhausted = False
        self._failed = False
        self._expected = 0
        self._last_access = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether every batch was handed out at least once."""
        return self._exhausted

    @property
    def failed(self) -> bool:
        """Whether a batch could not be read, since the order was last begun."""
        return self._failed

    def restart(self) -> None:
        """Goes back to the beginning of the same order, as if no batch had been handed out."""
        with self._lock:
            self.close()
            self._begun = self._failed = self._exhausted = False
            self._samples.clear()
            self._positions.clear()
            self._served.clear()

    def begin(self, anew: bool) -> None:
        """Starts an epoch: batches that were read before are asked for a second and last time.

        Args:
            anew: whether no request of this epoch came yet, so that what was read before doesn't count.
        """
        with self._lock:
            if anew and not self._begun:
                self._positions.clear()
                self._served.clear()
                self._exhausted = False
            self._begun = True

    def is_in_order(self, index: int, tolerance: int) -> bool:
        """Whether `index` is less than `tolerance` away from the one that ascending access wants next."""
        return self._renumber or index == 0 or abs(index - self._expected) < tolerance

    def read(self, index: int, keep_bytes: int = 0) -> dict[str, Column]:
        """The columns of batch `index`.

        Args:
            index: from 0.
            keep_bytes: memory for chunks that are kept because access is in random order.
        """
        with self._lock:
            self._expected = index + 1
            if len(self._served) == self._num_batches:
                self._served.clear()
            position = self._positions.setdefault(index, len(self._positions)) if self._renumber else index
            columns = self._samples.get(position)
            if columns is None:
                columns = self._read(position, keep_bytes)
            if self._begun:
                self._samples.pop(position, None)
            elif len(self._samples) < NUM_SAMPLES:
                self._samples[position] = columns
            self._served.add(index)
            if len(self._served) == self._num_batches:
                self._exhausted = True
                self.close()
            return columns

    def _read(self, position: int, keep_bytes: int) -> dict[str, Column]:
        if self._reader is None:
            self._open()
        self._reader.keep_bytes = max(self._reader.keep_bytes, keep_bytes)
        try:
            columns = self._reader.batch(position)
        except Exception:
            self._failed = True
            self.close()  # a reader keeps what failed
            raise
        self._last_access = time.monotonic()
        return columns

    def close(self) -> None:
        """Drops the data and ends the threads; a later `read` starts them again."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
                self._closed.set()

    def close_if_idle(self) -> None:
        with self._lock:
            if time.monotonic() - self._last_access >= IDLE_SECONDS:
                self.close()

    def _open(self) -> None:
        closed = self._closed = threading.Event()
        self._reader = self._open_reader()
        reference = weakref.ref(self, lambda _: closed.set())
        threading.Thread(target=_watch, args=(reference, closed), name="merlin-loader-idle", daemon=True).start()


def _watch(reference: weakref.ref, closed: threading.Event) -> None:
    """Closes an epoch that nobody reads any more; ends with its reader."""
    while not closed.wait(IDLE_SECONDS / 4):
        epoch = reference()
        if epoch is not None:
            epoch.close_if_idle()
        del epoch
