"""Files from the network: downloaded once, checked, unpacked."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable

_CHUNK_BYTES = 1 << 20


def cache_folder() -> pathlib.Path:
    """Where data go if no folder is named: ``INPUT_DATA_DIR``, or ``~/.cache/merlin_models``."""
    named = os.environ.get("INPUT_DATA_DIR")
    return pathlib.Path(named) if named else pathlib.Path.home() / ".cache" / "merlin_models"


def download(url: str, target: str | os.PathLike, md5: str | None = None, timeout_s: float = 60.0) -> pathlib.Path:
    """Downloads a file, unless it is there already.

    Args:
        url: of the file.
        target: path of the file; its folder is made where it is missing. Nothing is there until all of it came.
        md5: its checksum in hexadecimal digits, if it is known.
        timeout_s: how long to wait for the next bytes.

    Returns:
        The path.

    Raises:
        ConnectionError: if it cannot be downloaded; the message says what to do by hand.
        ValueError: if the file is not the one of the checksum; it is removed.
    """
    target = pathlib.Path(target)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response, part.open("wb") as file:
            expected = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            if expected is not None and file.tell() != int(expected):
                raise ConnectionError(f"{file.tell()} of {expected} bytes came")
    except OSError as error:  # urllib's errors are such, and so are timeouts and what the disk says
        part.unlink(missing_ok=True)
        raise ConnectionError(
            f"{url} must be reachable to be downloaded; or get it by hand and save it as '{target}'. Received: {error}"
        ) from error
    if md5 is not None and digest.hexdigest() != md5:
        part.unlink()
        raise ValueError(f"{url} must have the MD5 checksum {md5}. Received: {digest.hexdigest()}.")
    part.rename(target)
    return target


def unpack(archive: str | os.PathLike, folder: str | os.PathLike, wanted: Callable[[str], bool]) -> list[pathlib.Path]:
    """Unpacks files of a zip archive into one folder, without the archive's own folders.

    Args:
        archive: the zip file.
        folder: is made where it is missing; files of equal names are replaced.
        wanted: whether to take a file, by its name without folders.

    Returns:
        The files.

    Raises:
        ValueError: if it is no zip file, or a damaged one.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    try:
        with zipfile.ZipFile(archive) as source:
            for info in source.infolist():
                name = pathlib.PurePosixPath(info.filename).name
                if not info.is_dir() and wanted(name):
                    with source.open(info) as packed, (folder / name).open("wb") as file:
                        shutil.copyfileobj(packed, file)
                    files.append(folder / name)
    except zipfile.BadZipFile as error:
        raise ValueError(f"'{archive}' must be a complete zip file. Received: {error}.") from error
    return files


def require_files(folder: str | os.PathLike, names: Iterable[str], source: str) -> list[pathlib.Path]:
    """The paths of files that a person must have put into a folder.

    Args:
        folder: where they are.
        names: of the files.
        source: where they come from, a sentence for the error.

    Raises:
        FileNotFoundError: if one is missing.
    """
    paths = [pathlib.Path(folder) / name for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"'{folder}' must have {', '.join(missing)}. {source} Received: no such files.")
    return paths
