"""Writing to disk such that a reader, or a kill, sees all of what was written or none of it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def check_place(path: Path) -> None:
    """Raises OSError where `write_atomically` would not be able to write a file of this name."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    staged = _staged(path)
    with open(staged, "ab"):
        pass
    staged.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, on disk when this returns, its name in the folder too."""
    staged = _staged(path)
    try:
        with open(staged, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except OSError:  # a disk without room
        with suppress(OSError):
            staged.unlink()
        raise
    sync(path.parent)


def _staged(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk before returning."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line and have it on disk before returning; a torn line before it is mended."""
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
