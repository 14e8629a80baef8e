"""The folder of a hosted policy: `hosted.json`, the names of a model whose weights lie at its provider."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from rmft.errors import RunDirectoryError
from rmft.reading import Config

HOSTED = "hosted.json"
Name = Annotated[str, Field(min_length=1, max_length=500)]


class HostedModel(Config):
    """A model behind an API.

    provider: its name in the catalogue. base: the model that the run started from. model: what fine-tuning
    goes on from, as the provider calls it. called: what chat completions call it. job: the fine-tuning job
    that made it, None for the base model.
    """

    provider: Name
    base: Name
    model: Name
    called: Name
    job: Name | None = None


def write_hosted(folder: Path, model: HostedModel) -> None:
    """Write the names of the model that the policy in `folder` is."""
    write_synced(folder / HOSTED, (model.model_dump_json(indent=1) + "\n").encode())


def read_hosted(folder: Path) -> HostedModel:
    """The model that the policy in `folder` is. Raises RunDirectoryError when it is missing or damaged."""
    path = folder / HOSTED
    try:
        return HostedModel.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(f"'{path}' is missing or damaged: {reason}") from None


def write_synced(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, on disk when this returns, its name in the folder too."""
    staged = path.with_name(path.name + ".tmp")
    with staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
