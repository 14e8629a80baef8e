"""Pydantic's pieces for files that nobody vouches for: read strictly, or for what is right of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)


def check_name(name: str) -> str:
    """The name itself. Raises ValueError when it can't be printed as it is, or is too long."""
    if not name.isprintable() or len(name) > 200:
        raise ValueError(f"expected up to 200 printable characters as a name, found {name!r:.60}")
    return name


def is_lenient(info: ValidationInfo) -> bool:
    """Whether a file is read for what is right of it, whatever is wrong."""
    return bool(info.context)


def _check_name(name: str, info: ValidationInfo) -> str:
    return name if is_lenient(info) else check_name(name)


def _or_none(value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """In a lenient reading None stands for what is missing or wrong."""
    try:
        return handler(value)
    except (ValidationError, ValueError):
        if is_lenient(info):
            return None
        raise


def _required(value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """`_or_none`, of what is never None in a file that is whole."""
    if value is None and not is_lenient(info):
        raise ValueError("found null, expected a value")
    return _or_none(value, handler, info)


def _each(value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """In a lenient reading the entries of a mapping that are right."""
    if not is_lenient(info):
        return handler(value)
    found: dict[str, Any] = {}
    for key, item in value.items() if isinstance(value, dict) else ():
        with suppress(ValidationError, ValueError):
            found |= handler({str(key): item})
    return found


OrNone, Required, Each = WrapValidator(_or_none), WrapValidator(_required), WrapValidator(_each)
Name = Annotated[str, AfterValidator(_check_name)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float | None, OrNone]


class Part(BaseModel):
    """Frozen, of finite numbers, and readable leniently."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, value: Any, info: ValidationInfo) -> Any:
        """In a lenient reading what is missing is None."""
        if not is_lenient(info) or not isinstance(value, dict):
            return value
        return {name: None for name, field in cls.model_fields.items() if field.is_required()} | value
