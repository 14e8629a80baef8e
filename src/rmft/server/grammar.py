"""JSON whose every value is one of a few: a schema as a tree of the tokens that may come next.

The text between values is forced, and a value is sampled among the legal ones, token by token: a node of
the tree maps each token that may come next to the node after it. The node after the last token is empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rmft.server.refusals import ApiError

MAX_PROPERTIES, MAX_VALUES = 64, 1000
MAX_IN_ALL = 4096  # values of all properties together
_WORDS = frozenset({"title", "description"})
_OF_OBJECTS = _WORDS | {"type", "properties", "required", "additionalProperties", "$schema"}
_OF_VALUES = _WORDS | {"type", "enum", "const"}
_KINDS: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "null": type(None)}
PARAM = "response_format.json_schema.schema"

Node = dict[int, "Node"]


def legal_tokens(schema: Mapping[str, Any], encode: Callable[[str], list[int]]) -> Node:
    """The tree of a schema: an object whose properties are enums or consts, all of them written, in order.

    encode: a text's tokens, without any control tokens. The JSON has no spaces. Raises ApiError (400) for
    any other schema, naming what can't be followed.
    """
    choices = _choices(schema)
    node: Node = {}
    following = "}"
    for name, values in reversed(list(choices.items())):
        quoted = all(isinstance(value, str) for value in values)
        ends = [_dump(value)[quoted:] + following for value in values]
        node = _tree([_tokens(encode, end) for end in ends], node)
        following = ("{" if name == next(iter(choices)) else ",") + f"{_dump(name)}:" + '"' * quoted
    return _tree([_tokens(encode, following)], node)


def _choices(schema: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The legal values of each property, in the schema's order."""
    _known(schema, _OF_OBJECTS, PARAM)
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict) or not properties:
        raise _refused(PARAM, "expected type object with properties")
    if schema.get("additionalProperties", False) is not False:
        raise _refused(f"{PARAM}.additionalProperties", "expected false")
    required = schema.get("required", list(properties))
    if not isinstance(required, list) or set(map(str, required)) != set(properties):
        raise _refused(f"{PARAM}.required", "expected the names of all properties, since all are written")
    if len(properties) > MAX_PROPERTIES:
        raise _refused(f"{PARAM}.properties", f"found {len(properties)}, expected at most {MAX_PROPERTIES}")
    found = {name: _values(about, f"{PARAM}.properties.{name:.100}") for name, about in properties.items()}
    if (count := sum(map(len, found.values()))) > MAX_IN_ALL:
        raise _refused(f"{PARAM}.properties", f"found {count} values in all, expected at most {MAX_IN_ALL}")
    return found


def _values(about: Any, where: str) -> list[Any]:
    if not isinstance(about, dict):
        raise _refused(where, "expected an enum or a const")
    _known(about, _OF_VALUES, where)
    if ("enum" in about) == ("const" in about):
        raise _refused(where, "expected an enum or a const, since values are chosen among a few")
    values = about["enum"] if "enum" in about else [about["const"]]
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
        raise _refused(where, f"expected a list of 1 to {MAX_VALUES} values")
    kinds = about.get("type", list(_KINDS))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not kinds or not all(isinstance(kind, str) for kind in kinds):
        raise _refused(
            f"{where}.type", f"expected a name of a type or a list of them, found {_dump(kinds):.60}"
        )
    allowed = tuple(_KINDS[kind] for kind in kinds if kind in _KINDS)
    for value in values:
        if type(value) not in allowed:
            raise _refused(
                where, f"the value {_dump(value):.60} is not one of {', '.join(_KINDS)} as its type says"
            )
    if len({_dump(value) for value in values}) < len(values):
        raise _refused(where, "a value is there twice")
    return values


def _known(about: Mapping[str, Any], words: frozenset[str], where: str) -> None:
    for word in about:
        if word not in words:
            raise _refused(where, f"'{word:.60}' is not supported; supported: {', '.join(sorted(words))}")


def _refused(where: str, why: str) -> ApiError:
    return ApiError(f"The JSON schema can't be followed: {why}.", code="unsupported_schema", param=where)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tokens(encode: Callable[[str], list[int]], text: str) -> list[int]:
    try:
        return encode(text)
    except (UnicodeEncodeError, TypeError):  # as tokenizers say it
        raise _refused(PARAM, "it holds half of a surrogate pair, which is no character") from None


def _tree(ends: Sequence[list[int]], after: Node) -> Node:
    """The tree of several runs of tokens, of which none begins with another, with `after` behind each."""
    root: Node = {}
    for tokens in ends:
        node = root
        for token in tokens[:-1]:
            node = node.setdefault(token, {})
        if tokens[-1] in node:
            raise _refused(PARAM, "two values are the same to the model")
        node[tokens[-1]] = after
    return root
