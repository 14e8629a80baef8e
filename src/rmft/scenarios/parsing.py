"""Reading a decision from free text, strictly: what is not exactly one legal answer is refused.

    reasoning off    the answer is all there is:              K
    reasoning on     it is all that follows the mark:         T paid twice.\n**Choice:** K
    a distribution   every option once, a digit each:         K=5 T=3
    as JSON          an object with exactly these names:      {"choice": "K"}

The mark is "Choice:" in small or capital letters, wherever it stands, with *, _, ` or " around its word and
blanks before its colon. A local model's reasoning ends at the same mark that is found here. What stands
between <think> and </think> is a thought, which is reasoning whatever is in it.

Tolerated, since they change nothing: blanks around the answer, one full stop after it, commas between
weights, any order of weights; one pair of **, *, ` or " around a bare answer, and any of these around one
after the mark. Refused: small letters ("a" and "i" are words), a second mark, any other word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rmft.errors import RmftError

MARK = "Choice:"
THOUGHT, THOUGHT_END = "<think>", "</think>"
MARKS = (MARK, MARK.lower(), MARK.upper(), THOUGHT_END)
"""What reasoning mostly ends with."""
PAIRS = ("**", "*", "`", '"')
AROUND = ' \t\r\n*_`"'  # what may stand between the mark and the answer, and after that
_MARK = re.compile(r'(?<![^\W_])choice[*_`"]*[ \t]*:', re.IGNORECASE)
_BEGUN = re.compile(r'(?<![^\W_])(Choice|CHOICE)[*_`"]*[ \t]*\Z')

_SENTENCE = re.compile(r"[.!?;](?=\s|$)|\n")


class ParseError(RmftError, ValueError):
    """What a policy said is not exactly one legal decision."""


def split(said: str) -> tuple[str, str | None]:
    """The reasoning in `said`, and all that follows the first mark after it: None where there is no mark."""
    start = _after_thought(said)
    found = None if THOUGHT in said[start:] else _MARK.search(said, start)
    return (said, None) if found is None else (said[: found.start()], said[found.end() :])


def ends(reasoning: str) -> bool | None:
    """Whether reasoning has ended with its last token: None where it goes on.

    True after a mark, where the answer can begin, and after the end of a thought. False after a token that
    holds more than the mark, such as a part of the answer, and so must not stand.
    """
    answer = split(reasoning)[1]
    if answer is not None:
        return not answer.strip(AROUND)
    start = _after_thought(reasoning)
    return True if start and THOUGHT not in reasoning[start:] else None


def to_answer(reasoning: str) -> str:
    """What has to follow `reasoning` so that an answer can.

    Nothing where it ends in a mark; the colon of a mark that it has begun; else a mark on a line of its own,
    after the end of a thought that is still open.
    """
    if split(reasoning)[1] is not None:
        return ""
    if THOUGHT in reasoning[_after_thought(reasoning) :]:
        return f"\n{THOUGHT_END}\n\n{MARK} "
    return ": " if _BEGUN.search(reasoning) else f"\n{MARK} "


def final_answer(said: str, marked: bool) -> str:
    """The bare answer in `said`: what follows the mark, or all of it without a mark.

    Raises ParseError when the mark is missing or there twice.
    """
    if not marked:
        return _bare(said)
    answer = split(said)[1]
    if answer is None or _MARK.search(answer):
        times = "not once" if answer is None else "twice"
        raise ParseError(f"Found '{MARK}' {times} in {_excerpt(said)}; expected it once, before the answer.")
    return answer.strip(AROUND).removesuffix(".").strip(AROUND)


def named_last(reasoning: str, labels: Sequence[str]) -> str | None:
    """The one label that the last sentence with a label names; None where it names several, or none does.

    A label is a letter that stands alone. "A" and "I" may be words, so a sentence whose only label is one of
    these and that goes on like a word ("I think") names nobody for certain: None.
    """
    for sentence in reversed(_SENTENCE.split(reasoning)):
        named = [label for label in labels if re.search(rf"(?<![^\W_]){label}(?![^\W_]|-\w)", sentence)]
        if named:
            is_word = named[0] in "AI" and re.search(rf"(?<![^\W_]){named[0]}(['’]| +[a-z])", sentence)
            return None if len(named) > 1 or is_word else named[0]
    return None


def _after_thought(said: str) -> int:
    """Where the last thought that has ended does; 0 where there is none."""
    return said.rfind(THOUGHT_END) + len(THOUGHT_END) if THOUGHT_END in said else 0


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
