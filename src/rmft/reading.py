"""Settings as data: typed, checked on reading, and every mistake reported in one clear message."""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    GetPydanticSchema,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from rmft.errors import ConfigError, RunDirectoryError, UnknownNameError
from rmft.files import write_atomically

Model = TypeVar("Model")
Stored = TypeVar("Stored", bound="Config")


MAX_VALUES = 10**7  # in a YAML file


class Config(BaseModel):
    """A frozen group of settings that refuses keys it does not have, naming the nearest right one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        meant = dict(data)
        for key, value in data.items():
            if key not in cls.model_fields:
                raise ConfigError(str(UnknownNameError("key", str(key), cls.model_fields)))
            annotation = cls.model_fields[key].annotation
            if isinstance(value, bool) and not _takes_truth(annotation):
                if value or "off" not in get_args(annotation):
                    raise ConfigError(
                        f"{key}: found {str(value).lower()} (yes, no, on and off are true and "
                        "false in YAML), which this setting does not take."
                    )
                meant[key] = "off"
        return meant


def _takes_truth(annotation: Any) -> bool:
    """Whether a value of this type may be true or false."""
    if annotation in (bool, Any, object) or isinstance(annotation, TypeVar):
        return True
    return any(_takes_truth(each) or isinstance(each, bool) for each in get_args(annotation))


def by_kind(what: str, default: str, *models: type[Config]) -> GetPydanticSchema:
    """Annotates a union of `models`, told apart by their literal `kind`; `default` where none is given.

    A key that only other kinds have is refused by a message that names them. what: the group of settings.
    """
    kinds = {str(model.model_fields["kind"].default): model for model in models}

    def checked(data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        kind = data.get("kind", default)
        if not isinstance(kind, str) or kind not in kinds:
            raise ConfigError(str(UnknownNameError(f"kind of {what}", str(kind), kinds)))
        for key in data:
            having = [name for name, model in kinds.items() if key in model.model_fields]
            if having and kind not in having:
                raise ConfigError(
                    f"'{key}' does nothing with kind {kind}: it is a setting of {', '.join(having)}. Leave "
                    "it out, or choose another kind."
                )
        return {**data, "kind": kind}

    def schema(source: Any, handler: Any) -> Any:
        return handler(Annotated[source, Discriminator("kind"), BeforeValidator(checked)])

    return GetPydanticSchema(schema)


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


def read_mapping(path: Path, what: str = "config") -> dict[str, Any]:
    """The mapping in a YAML file, which errors call `what`. Raises ConfigError when there is none."""
    try:
        values = parse_yaml(path.read_bytes(), f"'{path}'")
    except OSError as error:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f" Did you mean '{path.parent / near[0]}'?" if near else ""
        raise ConfigError(f"Can't read the {what} '{path}': {error.strerror or error}.{hint}") from None
    if not isinstance(values, dict):
        found = "an empty file" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"'{path}' holds {found}; expected settings such as 'suite: smoke'.")
    return values


class _Loader(yaml.SafeLoader):
    """Plain data only, and no key twice in a mapping. What `<<` merges in may be overridden, as ever."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                value = self.construct_object(key, deep=True)
                if value in lines:
                    raise yaml.YAMLError(
                        f"the key '{key.value:.60}' stands in line {lines[value]} and again in line {line}; "
                        "keep one of them"
                    )
                lines[value] = line
        return node


def parse_yaml(text: str | bytes, what: str) -> Any:
    """The data in YAML `text`. Raises ConfigError, beginning with `what`, when it is no YAML.

    A key that stands twice in one mapping is a mistake, for one of the two would be dropped in silence.
    """
    try:
        data = yaml.load(text, _Loader)
        if _size(data, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"it unfolds to more than {MAX_VALUES:,} values")
        return data
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # beside its own errors yaml lets through those of values such as 2001-13-45 or !!bool x
        raise ConfigError(f"{what} is not valid YAML: {' '.join(str(error).split()):.300}") from None


def _size(data: Any, known: dict[int, float]) -> float:
    """How many values there are in `data`, where what an alias names counts each time."""
    if not isinstance(data, dict | list):
        return 1
    if id(data) not in known:
        known[id(data)] = math.inf  # of what holds itself
        parts = [*data, *data.values()] if isinstance(data, dict) else data
        known[id(data)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(data)]


def read(model: type[Model], data: object, where: str, folder: str = ".", *, trust: bool = False) -> Model:
    """`data` (as from YAML) as a `model`. Relative file names in it start from `folder`.

    trust: whether code that the data names may be run (`rmft.own_code`). Raises ConfigError that lists
    every mistake as `where: key: found, expected`, and UnknownNameError, with `where` in front, for a name
    nobody has.
    """
    try:
        return TypeAdapter(model).validate_python(data, context={"folder": folder, "trust": trust})
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
