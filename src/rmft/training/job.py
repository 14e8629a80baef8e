"""How far a fine-tuning job has come, on disk before each next step: none is lost or paid for twice."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from rmft.errors import RunDirectoryError
from rmft.providers.hosted_model import write_synced
from rmft.reading import Config


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
            found = _read(path)
            if found.key == key:
                self.record = found
            elif found.asked and found.model is None:
                self.useless = found

    def uploaded(self, file: str) -> None:
        self._write(self.record.model_copy(update={"file": file}))

    def asked(self) -> None:
        self._write(self.record.model_copy(update={"asked": True}))

    def created(self, job: str) -> None:
        self._write(self.record.model_copy(update={"job": job}))

    def succeeded(self, model: str, tokens: int | None) -> None:
        self._write(self.record.model_copy(update={"model": model, "tokens": tokens}))

    def refused(self, *, keep_file: bool) -> None:
        """No job was made; the next one is asked for with the same file, or with a new upload."""
        file = self.record.file if keep_file else None
        self._write(self.record.model_copy(update={"file": file, "asked": False}))

    def ended(self, why: str) -> None:
        """The job ended in vain; the next one begins with a new upload."""
        self._write(JobRecord(key=self.record.key, ended=(*self.record.ended, why)))

    def _write(self, record: JobRecord) -> None:
        write_synced(self.path, (record.model_dump_json(indent=1) + "\n").encode())
        self.record = record


def _read(path: Path) -> JobRecord:
    try:
        return JobRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(
            f"'{path}' is damaged: {reason}. It says which fine-tuning job is going on: look it up at the "
            "provider, and cancel it or write its id here, before you delete the file."
        ) from None
