"""Settings as data: typed, checked on reading, and every mistake reported in one clear message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from rmft.errors import ConfigError, RunDirectoryError, UnknownNameError
from rmft.files import write_atomically

Model = TypeVar("Model")
Stored = TypeVar("Stored", bound="Config")


class Config(BaseModel):
    """A frozen group of settings that refuses keys it does not have, naming the nearest right one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ConfigError(str(UnknownNameError("key", str(key), cls.model_fields)))
        return data


def write_stored(path: Path, settings: Config) -> None:
    """Replace the file `path` by these settings as JSON, in one step."""
    write_atomically(path, (settings.model_dump_json(indent=1) + "\n").encode())


def read_stored(model: type[Stored], path: Path, advice: str = "") -> Stored:
    """What `write_stored` wrote. Raises RunDirectoryError, which ends with `advice`, when it is damaged."""
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(f"'{path}' is missing or damaged: {reason}{advice}") from None


def parse_yaml(text: str | bytes, what: str) -> Any:
    """The data in YAML `text`. Raises ConfigError, beginning with `what`, when it is no YAML."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # beside its own errors yaml lets through those of values such as 2001-13-45 or !!bool x
        raise ConfigError(f"{what} is not valid YAML: {' '.join(str(error).split()):.300}") from None


def read(model: type[Model], data: object, where: str, folder: str = ".") -> Model:
    """`data` (as from YAML) as a `model`. Relative file names in it start from `folder`.

    Raises ConfigError that lists every mistake as `where: key: found, expected`, and
    UnknownNameError, with `where` in front, for a name nobody has.
    """
    try:
        return TypeAdapter(model).validate_python(data, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError("\n".join(_mistakes(error, where, data))) from None
    except UnknownNameError as error:
        error.args = (f"{where}: {error}",)
        raise


def _mistakes(error: ValidationError, where: str, data: object) -> list[str]:
    lines = []
    for mistake in error.errors(include_url=False):
        key = ".".join(_keys(data, mistake["loc"], missing=mistake["type"] == "missing"))
        place = f"{where}: {key}" if key else where
        if mistake["type"] == "value_error":
            lines.append(f"{place}: {mistake['ctx']['error']}")
        elif mistake["type"] == "missing":
            lines.append(f"{place}: this key is missing; add it.")
        else:
            expected = mistake["msg"].removeprefix("Input should be ")
            lines.append(f"{place}: found {_short(mistake['input'])}; expected: {expected}.")
    return lines


def _keys(data: object, place: tuple[int | str, ...], *, missing: bool) -> Iterator[str]:
    """The parts of a place in `data`, without the tags that pydantic puts between them."""
    for depth, part in enumerate(place):
        if isinstance(data, Mapping) and part not in data and not (missing and depth == len(place) - 1):
            continue
        yield str(part)
        inside = (
            part in data if isinstance(data, Mapping) else isinstance(data, list) and part in range(len(data))
        )
        data = data[part] if inside else None  # type: ignore[index]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
