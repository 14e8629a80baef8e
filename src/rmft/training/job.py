"""How far a fine-tuning job has come, on disk before each next step: none is lost or paid for twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rmft.reading import Config, read_stored, write_stored


class JobRecord(Config):
    """key: of the training file and all else that the job depends on. What comes next is what is None first.

    file: the uploaded file's id. asked: whether a job on it may have been asked for. job: its id. model: what
    it made. tokens: that it was trained on, as the provider counts. ended: why earlier jobs ended in vain.
    """

    key: str
    file: str | None = None
    asked: bool = False
    job: str | None = None
    model: str | None = None
    tokens: int | None = None
    ended: tuple[str, ...] = ()


class JobFile:
    """The record of an iteration's job, in a file."""

    def __init__(self, path: Path, key: str) -> None:
        """What is recorded at `path` for `key`; a record of another key is of no use.

        useless: such a record, where its job may still go on. Raises RunDirectoryError when the file is
        damaged.
        """
        self.path = path
        self.record = JobRecord(key=key)
        self.useless: JobRecord | None = None
        if path.exists():
            found = read_stored(
                JobRecord,
                path,
                ". It says which fine-tuning job is going on: look it up at the provider, and cancel it or "
                "write its id here, before you delete the file.",
            )
            if found.key == key:
                self.record = found
            elif found.asked and found.model is None:
                self.useless = found

    def update(self, changes: Mapping[str, object]) -> None:
        """Have these fields of the record on disk before returning."""
        self.record = self.record.model_copy(update=changes)
        write_stored(self.path, self.record)

    def ended(self, why: str) -> None:
        """The job ended in vain; the next one begins with a new upload."""
        self.record = JobRecord(key=self.record.key, ended=self.record.ended)
        self.update({"ended": (*self.record.ended, why)})
