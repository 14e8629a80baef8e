"""One stored trajectory -> what the page shows of it, round by round. Nothing in it is trusted."""

from __future__ import annotations

from rmft.records.lines import OLD_NAMES
from rmft.report.blocks import Json
from rmft.report.trajectories import Shelf, advantage_of
from rmft.report.untrusted import get, items_of, mapping, number, numbers, shown, text, whole

MAX_ROUNDS = 2_000
MAX_ARMS = 1_000
MAX_WORDS = 20_000  # characters of one message
MAX_REFUSED = 20


def conversation(shelf: Shelf, line: object) -> Json:
    """A trajectory for the page, from the line that is stored of it.

    facts: pairs of names and values. options: what each arm is called. rounds: prompt, refused and
    completion (absent where there are no words), cut where the budget cut it, arm (None where none was
    played), probabilities and true means (K,) or None, what was seen, regret of the round, advantage (0
    outside the loss). cut: rounds left out. missing: in words, if nothing could be read.
    """
    rounds = items_of(get(line, "rounds"))
    means = [numbers(each) for each in items_of(get(line, "expected_rewards"))]
    found = [
        _round(each, means[place] if place < len(means) else None)
        for place, each in enumerate(rounds[:MAX_ROUNDS])
    ]
    return {
        "title": shelf.title,
        "facts": [*([["suite", shelf.suite]] if shelf.suite else []), *_facts(line)],
        "failed": shown(text(get(line, "failed")) or "", MAX_WORDS),
        "options": _options(line, found),
        "rounds": found,
        "cut": max(len(rounds) - MAX_ROUNDS, 0),
        "missing": "" if found else f"Its rounds are missing or damaged in {shelf.name}.",
    }


def _facts(line: object) -> list[list[object]]:
    regret = number(get(line, "regret"))
    words = {key: text(get(line, key)) for key in ("policy", "setting", "context")}
    facts: list[list[object]] = [[key, shown(found, 200)] for key, found in words.items() if found]
    counts = {key: whole(get(line, key)) for key in ("problem", "rollout")}
    facts += [[key, found] for key, found in counts.items() if found is not None]
    return [*facts, ["regret", regret]] if (regret := number(get(line, "regret"))) is not None else facts


def _options(line: object, rounds: list[Json]) -> list[str]:
    """Each arm's letter and name where they are stored, else its number from 1."""
    named = [" ".join(str(part) for part in items_of(pair)) for pair in items_of(get(line, "options"))]
    highest = [len(each["probabilities"] or each["means"] or ()) or (each["arm"] or 0) + 1 for each in rounds]
    count = min(max(highest, default=0), MAX_ARMS)
    if len(named) >= count:
        return [shown(name, 80) for name in named[:count]]
    return [f"arm {place + 1}" for place in range(count)]


def _round(each: object, means: list[float] | None) -> Json:
    arm = whole(get(each, "arm"))
    either = {key: (get(each, key), get(each, OLD_NAMES[key])) for key in ("prompt", "completion")}
    words = {key: found for key, both in either.items() for found in both if isinstance(found, str)}
    if system := text(get(each, "system")):
        words["prompt"] = "\n\n".join(filter(None, (system, words.get("prompt"))))
    words = {key: shown(found, MAX_WORDS) for key, found in words.items()}
    refused = [
        [shown(str(part), MAX_WORDS) for part in items_of(pair)[:2]]
        for pair in items_of(get(each, "refused"))[:MAX_REFUSED]
    ]
    seen = get(each, "seen")
    return {
        **words,
        **({"cut": True} if get(each, "cut") is True else {}),
        **({"refused": refused} if refused else {}),
        "arm": arm if arm is not None and arm < MAX_ARMS else None,
        "probabilities": _few(numbers(get(each, "probabilities"))),
        "seen": number(seen) if not isinstance(seen, list) else _few(numbers(seen)),
        "means": _few(means),
        "regret": number(get(each, "regret")),
        **({"advantage": advantage_of(each)} if {"advantage", "weight"} & mapping(each).keys() else {}),
    }


def _few(values: list[float] | None) -> list[float] | None:
    """At most MAX_ARMS of them, to five digits."""
    return None if values is None else [float(f"{value:.5g}") for value in values[:MAX_ARMS]]
