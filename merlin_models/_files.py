"""Writing a file or folder so that what was there before survives a full disk and a killed process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


@contextlib.contextmanager
def replacing(path: str | os.PathLike, needed_bytes: int = 0) -> Iterator[str | os.PathLike]:
    """A new path beside ``path`` to write to, which takes the place of ``path`` once the block is through.

    Until then a file at ``path`` stays as it is: a reader sees the old one or the new one, never a part. The new one is on
    the disk before it is renamed. If the block raises, the new file is removed; a process that is killed leaves it, as
    ".<8 hex digits>.<name>".

    Args:
        path: a file's. A symbolic link stays one: the file it leads to is replaced, with its permissions. What is no file
            of this machine (an address with "://", a pipe, a device) is written to as it is.
        needed_bytes: what is known to be written at least.

    Raises:
        IsADirectoryError: if there is a folder of that name.
        OSError: with ``errno.ENOSPC`` before anything is written, if the disk has less room than ``needed_bytes``.
    """
    if is_address(path):
        yield path
        return
    target = pathlib.Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():
        yield path
        return
    _require_room(target.parent, needed_bytes)
    part = target.with_name(f".{uuid.uuid4().hex[:8]}.{target.name[-200:]}")
    try:
        yield part
        if target.exists():
            shutil.copymode(target, part)
        _to_disk(part)
        os.replace(part, target)
        _to_disk(target.parent)
    finally:
        part.unlink(missing_ok=True)


def is_address(path: str | os.PathLike) -> bool:
    """Whether it leads to a remote store. As a ``pathlib.Path`` it would be a folder of this machine."""
    return "://" in os.fspath(path)


def local_path(path: str | os.PathLike, argument: str) -> pathlib.Path:
    """Raises ValueError for an address with "://", naming the argument."""
    if is_address(path):
        raise ValueError(f"{argument} must be a path of this machine. Received: '{os.fspath(path)}'")
    return pathlib.Path(path)


@contextlib.contextmanager
def replacing_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write to, which takes the path's place once all is written: no server sees a half of it.

    A symbolic link stays one: the folder it leads to is replaced. On Linux there is a folder at the path at any time. Of
    several writers at once the last one's stays. If the block raises, nothing at the path changes.
    """
    path = pathlib.Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield new
        while not _take_place(new, path):
            pass  # another writer came in between
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _take_place(new: pathlib.Path, path: pathlib.Path) -> bool:
    """Renames ``new`` to ``path``, where what was at ``path`` becomes ``new``; or is False since others renamed theirs."""
    if not path.exists():
        try:
            new.rename(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            return False
        return True
    try:
        _exchange(new, path)
    except FileNotFoundError:
        return False
    except NotImplementedError:
        return _take_place_in_two(new, path)
    return True


def _take_place_in_two(new: pathlib.Path, path: pathlib.Path) -> bool:
    """Where a system or a file system cannot exchange: for a moment nothing is at ``path``."""
    old = new.with_name(f"{new.name}.old")
    try:
        path.rename(old)
    except FileNotFoundError:
        return False
    try:
        new.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            shutil.rmtree(old)  # another writer's is there, for which this one made room
            return False
        old.rename(path)
        raise
    shutil.rmtree(old)
    return True


def _exchange(one: pathlib.Path, other: pathlib.Path) -> None:
    """Swaps two names in one step. Raises NotImplementedError where there is no such thing."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise NotImplementedError
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)):
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EINVAL):
            raise NotImplementedError
        raise OSError(code, os.strerror(code), os.fspath(one), None, os.fspath(other))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file as :func:`replacing` has it."""
    with replacing(path) as part:
        pathlib.Path(part).write_text(text, encoding="utf-8")


def _require_room(folder: pathlib.Path, needed: int) -> None:
    if not needed:
        return
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < needed:  # some network file systems know neither
        raise OSError(
            errno.ENOSPC,
            f"The disk must have room for {needed:,} bytes, beside the file that is replaced. Received: {disk.free:,} free",
            str(folder),
        )


def _to_disk(path: pathlib.Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


class HDF5File(io.BytesIO):
    """A file that h5py writes through Python, for Keras in the place of a path.

    HDF5's own writer ends the process with a segmentation fault after a failed write, when it closes the file. Here the
    first failure is raised as the OSError that it is. What comes after it is dropped without a word, and so is what comes
    after ``close``: Keras leaves the file of a failed save open, and HDF5 goes on with it when it is collected.

    Args:
        path: of the file, which is made anew.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__()
        self._path, self._over = str(path), False
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - closed by close()

    def __str__(self) -> str:
        return self._path  # Keras looks at how it ends

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        with self._noting_failure():
            while len(left) and not self._over:
                left = left[self._file.write(left) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        with self._noting_failure():
            return size if self._over else self._file.truncate(size)

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._over = True
            raise

    def flush(self) -> None:
        """Nothing is kept back."""

    def readinto(self, buffer: Any) -> int:
        return len(buffer) if self._over else self._file.readinto(buffer)

    def seek(self, position: int, whence: int = 0) -> int:
        return position if self._over else self._file.seek(position, whence)

    def tell(self) -> int:
        return 0 if self._over else self._file.tell()

    def close(self) -> None:
        # Not that of BytesIO, which would have HDF5 fail later.
        self._over = True
        self._file.close()
