"""Reading a decision from free text, strictly: what is not exactly one legal answer is refused.

    reasoning off    the answer is all there is:            K
    reasoning on     it is the last line, after "Choice:":  Choice: K
    a distribution   every option once, a digit each:       K=5 T=3
    as JSON          an object with exactly these names:     {"choice": "K"}

Tolerated, since they change nothing: blanks around the answer, one full stop after it, commas between
weights, any order of weights, and one pair of **, *, ` or " around the answer, its line or "Choice:".
Refused: small letters ("a" and "i" are words), a second "Choice:" anywhere, any other word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rmft.errors import RmftError

MARK = "Choice:"
PAIRS = ("**", "*", "`", '"')


class ParseError(RmftError, ValueError):
    """What a policy said is not exactly one legal decision."""


def final_answer(said: str, marked: bool) -> str:
    """The bare answer in `said`: what follows the mark on the last line, or all of it without a mark.

    Raises ParseError when the mark is missing, not at the start of the last line, or there twice.
    """
    if not marked:
        return _bare(said)
    count = said.lower().count(MARK.lower())
    if count != 1:
        raise ParseError(f"Found '{MARK}' {count} times in {_excerpt(said)}; expected it once.")
    line = _bare(said.strip().split("\n")[-1])
    for mark in (f"**{MARK}**", MARK):
        if line.startswith(mark):
            return _bare(line.removeprefix(mark))
    raise ParseError(f"Found {_excerpt(said)}; expected the last line to begin with '{MARK}'.")


def parse_label(answer: str, labels: Sequence[str]) -> str:
    """The one label that `answer` is. Raises ParseError."""
    if answer not in labels:
        raise ParseError(f"Found {_excerpt(answer)}; expected exactly one of {', '.join(labels)}.")
    return answer


def parse_weights(answer: str, labels: Sequence[str]) -> list[int]:
    """The weight of every label, 0 to 9, in the order of `labels`. Raises ParseError."""
    parts = re.split(r",? +|,", answer)
    weights = {part[0]: int(part[2:]) for part in parts if re.fullmatch(r"[A-Z]=[0-9]", part)}
    if len(weights) != len(parts) or weights.keys() != set(labels):
        expected = " ".join(f"{label}=?" for label in labels)
        raise ParseError(f"Found {_excerpt(answer)}; expected {expected} with a digit for every ?.")
    return [weights[label] for label in labels]


def parse_object(said: str, properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON object in `said`, which has these properties and no others, each one of its `enum`.

    In the order of `properties`. Raises ParseError.
    """
    try:
        pairs = json.loads(said, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, _Pairs) or sorted(name for name, _ in pairs) != sorted(properties):
        raise ParseError(f"Found {_excerpt(said)}; expected JSON with {', '.join(properties)}, once each.")
    found = dict(pairs)
    for name, one in properties.items():
        if not any(type(found[name]) is type(value) and found[name] == value for value in one["enum"]):
            legal = ", ".join(json.dumps(value) for value in one["enum"])
            raise ParseError(f"Found {name} {found[name]!r:.60}; expected one of {legal}.")
    return {name: found[name] for name in properties}


class _Pairs(list[tuple[str, Any]]):
    """The names and values of a JSON object, names that are there twice included."""


def _bare(text: str) -> str:
    text = text.strip().removesuffix(".")
    for pair in PAIRS:
        if len(text) > 2 * len(pair) and text.startswith(pair) and text.endswith(pair):
            return text[len(pair) : -len(pair)].removesuffix(".").strip()
    return text.strip()


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else "..." + text[-57:])
