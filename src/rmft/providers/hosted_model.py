"""The folder of a hosted policy: `hosted.json`, the names of a model whose weights lie at its provider."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from rmft.reading import Config, read_stored, write_stored

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
    write_stored(folder / HOSTED, model)


def read_hosted(folder: Path) -> HostedModel:
    """The model that the policy in `folder` is. Raises RunDirectoryError when it is missing or damaged."""
    return read_stored(HostedModel, folder / HOSTED)
