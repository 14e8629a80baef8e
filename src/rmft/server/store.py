"""What the server was given and has promised: files, jobs, their events, models. SQLite, and files beside it.

FOLDER/
    server.sqlite       all records; one that was answered for is on disk
    files/ID            what was uploaded
    models/NAME/        fine-tuned models, each the folder of a local policy; NAME is their job's id
    work/ID/            what a job that is running writes
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, get_args

from rmft.errors import RunDirectoryError
from rmft.server.refusals import ApiError

Record = dict[str, Any]
Table = Literal["files", "jobs", "models", "events", "episodes", "repeatable"]
_TABLES = "".join(
    f"CREATE TABLE IF NOT EXISTS {table} (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, "
    "owner TEXT NOT NULL, record TEXT NOT NULL);"
    f"CREATE INDEX IF NOT EXISTS {table}_owner ON {table} (owner, number);"
    for table in get_args(Table)
)


MAX_GB = 20.0  # of a store, unless its server is told otherwise


class Store:
    """Records by table and id, each a JSON object; `owner` groups those that are listed together.

    max_gb: what may lie in the folder before clients can add no more; see `check_room`. Every method may be
    called from any thread. Raises RunDirectoryError when the folder can't be used, or another server uses it.
    """

    def __init__(self, folder: Path, max_gb: float = MAX_GB) -> None:
        self.folder, self._max_gb = folder, max_gb
        self._lock = threading.RLock()
        try:
            for name in ("files", "models", "work"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            self._held = (folder / "lock").open("w")
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._held.close()
                raise
            self._database = sqlite3.connect(
                folder / "server.sqlite", check_same_thread=False, isolation_level=None
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_TABLES)
        except BlockingIOError:
            raise RunDirectoryError(
                f"Another server uses '{folder}'. Stop it, or choose another --folder."
            ) from None
        except (OSError, sqlite3.Error) as error:
            raise RunDirectoryError(f"The folder '{folder}' can't be used: {error}.") from None
        self._tidy()

    def close(self) -> None:
        """Let another server use the folder."""
        with self._lock:
            self._database.close()
            self._held.close()

    def _tidy(self) -> None:
        """Delete what a kill left behind that no record tells of."""
        for path in (self.folder / "files").iterdir():
            if self.find("files", path.name) is None:
                path.unlink()
        published = {model["job"] for model in self.all("models")}
        for path in (*(self.folder / "work").iterdir(), *(self.folder / "models").iterdir()):
            if path.parent.name == "work" or path.name not in published:
                shutil.rmtree(path)

    def check_room(self, size: int = 0) -> None:
        """Raises ApiError (400) when `size` bytes that a client adds are more than may lie in the folder."""
        with self._lock:
            pages, free, of = (
                self._database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        taken = (pages - free) * of + size
        for name in ("files", "models"):
            for folder, _, files in os.walk(self.folder / name):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    taken += sum(os.stat(os.path.join(folder, file)).st_size for file in files)
        if taken > self._max_gb * 1e9:
            raise ApiError(
                f"The server keeps {self._max_gb:g} GB at most. Delete files, models or episodes first.",
                code="storage_full",
            )

    def file(self, file_id: str) -> Path:
        """Where an uploaded file's content lies; ids are the server's own, never a client's words."""
        return self.folder / "files" / file_id

    def model(self, job_id: str) -> Path:
        """Where the model of a job lies."""
        return self.folder / "models" / job_id

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within is on disk afterwards, or none of it; nobody else writes meanwhile."""
        with self._lock:
            if self._database.in_transaction:  # this is a part of one
                yield
                return
            self._database.execute("BEGIN IMMEDIATE")
            with self._database:
                yield

    def add(self, table: Table, record: Record, owner: str = "") -> None:
        """Keep a record, whose "id" names it."""
        with self.transaction():
            self._database.execute(
                f"INSERT INTO {table} (id, owner, record) VALUES (?, ?, ?)",
                (record["id"], owner, json.dumps(record)),
            )

    def change(self, table: Table, record_id: str, **changes: Any) -> Record:
        """The record as it is now that these of its entries are changed."""
        with self.transaction():
            record = self.find(table, record_id)
            assert record is not None
            record |= changes
            self._database.execute(
                f"UPDATE {table} SET record = ? WHERE id = ?", (json.dumps(record), record_id)
            )
        return record

    def remove(self, table: Table, record_id: str) -> None:
        """Forget a record."""
        with self.transaction():
            self._database.execute(f"DELETE FROM {table} WHERE id = ?", (record_id,))

    def remove_of(self, table: Table, owner: str) -> None:
        """Forget all records of an owner."""
        with self.transaction():
            self._database.execute(f"DELETE FROM {table} WHERE owner = ?", (owner,))

    def find(self, table: Table, record_id: str) -> Record | None:
        """The record of that id, if there is one."""
        with self._lock:
            found = self._database.execute(
                f"SELECT record FROM {table} WHERE id = ?", (record_id,)
            ).fetchone()
        return None if found is None else dict(json.loads(found[0]))

    def get(self, table: Table, record_id: str) -> Record:
        """The record of that id. Raises ApiError (404) when there is none."""
        record = self.find(table, record_id)
        if record is None:
            what = {"files": "file", "jobs": "fine-tuning job", "episodes": "episode"}.get(table, table)
            raise ApiError(
                f"There is no {what} '{record_id:.200}'.", status=404, code="not_found", param="id"
            )
        return record

    def page(
        self, table: Table, owner: str, limit: int, after: str | None = None, *, newest_first: bool = True
    ) -> tuple[list[Record], bool]:
        """Up to `limit` records of an owner that come after the one `after`, and whether there are more.

        Raises ApiError (400) when there is no record `after`.
        """
        with self._lock:
            where, values = "owner = ?", [owner, *((after,) if after is not None else ())]
            if after is not None:
                if self.find(table, after) is None:
                    raise ApiError(f"'after' names nothing that is here: '{after}'.", param="after")
                sign = "<" if newest_first else ">"
                where += f" AND number {sign} (SELECT number FROM {table} WHERE id = ?)"
            order = "DESC" if newest_first else "ASC"
            found = self._database.execute(
                f"SELECT record FROM {table} WHERE {where} ORDER BY number {order} LIMIT ?",
                (*values, limit + 1),
            ).fetchall()
        return [dict(json.loads(text)) for (text,) in found[:limit]], len(found) > limit

    def all(self, table: Table) -> list[Record]:
        """Every record, in the order in which they were added."""
        with self._lock:
            found = self._database.execute(f"SELECT record FROM {table} ORDER BY number").fetchall()
        return [dict(json.loads(text)) for (text,) in found]


def new_id(kind: str) -> str:
    """A name that nobody has had yet, such as file-..."""
    return f"{kind}-{secrets.token_hex(12)}"


def now() -> int:
    """Seconds since 1970, as the API counts them."""
    return int(time.time())
