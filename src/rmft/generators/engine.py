"""A language model on servers elsewhere, by vLLM's routes of token ids: a `TokenEngine`.

A choice is scored and not sampled there: the log probabilities of the legal tokens come back, are
renormalized and drawn from by the caller's uniforms. So probabilities are exact, and draws do not depend on
where a row is. What is written freely is sampled on the server, with a seed made of the caller's uniforms,
and comes back as ids with their log probabilities.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from rmft.errors import ConfigError, EndpointError
from rmft.generators.fleet import Ask, Fleet
from rmft.generators.tokens import Ends, Written, append_to
from rmft.types import FloatArray, IntArray

NEUTRAL = {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
"""Sent along wherever they are taken: a server takes other defaults from a model's generation_config."""
ROWS_PER_REQUEST = 64
SESSIONS = 4  # at each server, so that while the slowest row of one is waited for the others go on
MOST_IDS = 128  # whose log probabilities one request may ask for
SEEDS = 2**53

Opening = tuple[int, ...]
"""The tokens that a row begins with."""


class RemoteEngine:
    """Implements `TokenEngine` with the model, or adapter, that all servers of a fleet call `model`.

    rows: how many a server plays at once, in sessions that several threads go on with. allowed: whether the
    servers take no `logprob_token_ids`, so that log probabilities among `allowed_token_ids` are asked for.
    """

    def __init__(
        self,
        fleet: Fleet,
        model: str,
        context: int,
        stop_ids: Collection[int],
        rows: int = 64,
        *,
        allowed: bool = False,
    ) -> None:
        self.fleet, self.model, self.rows, self.allowed = fleet, model, rows, allowed
        self.context, self.stop_ids = context, stop_ids
        self._lock = Lock()
        self._homes: dict[Opening, str] = {}
        self._load: Counter[str] = Counter()  # rows of sessions under way at each server

    @property
    def sessions_at_once(self) -> int:
        """See `TokenEngine`."""
        return min(SESSIONS, self.rows) * len(self.fleet.some_alive())

    def rows_at_once(self, max_tokens: int) -> int:  # noqa: ARG002
        """See `TokenEngine`; a server's share for each of its sessions."""
        return max(1, self.rows // SESSIONS)

    def home(self, opening: Opening, rows: int) -> str:
        """Where so many rows with this opening are to be: where it was read already, or there is most room.

        They count there until `leave`. Raises EndpointError when all servers have died.
        """
        with self._lock:
            alive = self.fleet.some_alive()
            if self._homes.get(opening) not in alive:
                self._homes[opening] = min(alive, key=lambda url: self._load[url])
            self._load[self._homes[opening]] += rows
            return self._homes[opening]

    def leave(self, counted: Counter[str]) -> None:
        """The rows of a session that has ended, at each server."""
        with self._lock:
            self._load.subtract(counted)

    def session(self, num_rows: int, max_tokens: int) -> RemoteSession:
        """See `TokenEngine`."""
        if max_tokens > self.context:
            raise ConfigError(
                f"A row of {max_tokens:,} tokens is asked for, but the servers read {self.context:,} at "
                "most. Shorten the horizon, the wording or the reasoning, or raise their --max-model-len."
            )
        return RemoteSession(self, num_rows)

    def scores(self, rows: Sequence[Sequence[int]], legal: IntArray, where: Sequence[str]) -> list[Any]:
        """(C,) log probabilities of legal[i] after rows[i] at the server where[i]; None where it has died.

        They are of the model at temperature 1, up to a constant of each row. Raises EndpointError when an
        answer lacks some.
        """
        asks: list[Ask] = []
        asked: list[list[int]] = []
        for url in dict.fromkeys(where):
            here = [row for row, home in enumerate(where) if home == url]
            for start in range(0, len(here), ROWS_PER_REQUEST):
                some = here[start : start + ROWS_PER_REQUEST]
                ids = np.unique(legal[some]).tolist()
                if len(ids) > MOST_IDS:
                    raise ConfigError(
                        f"A round has {len(ids)} legal tokens; servers score at most {MOST_IDS} at once."
                    )
                wanted = {"allowed_token_ids": ids} if self.allowed else {"logprob_token_ids": ids}
                wanted |= {"logprobs": len(ids) if self.allowed else 1}
                asks.append((url, self._body([list(rows[row]) for row in some], 1, 1.0) | wanted))
                asked.append(some)
        found: list[Any] = [None] * len(rows)
        for some, answer, (url, _) in zip(asked, self.fleet.ask(asks), asks, strict=True):
            if answer is None:
                continue
            for row, choice in zip(some, _choices(answer, len(some), url), strict=True):
                found[row] = _scores(choice, legal[row].tolist(), url)
        return found

    def written(
        self,
        rows: Sequence[Sequence[int]],
        budgets: Sequence[int],
        seeds: Sequence[int],
        temperature: float,
        marks: Sequence[str],
        where: Sequence[str],
    ) -> list[Any]:
        """Tokens and their log probabilities written after each row; None where its server has died."""
        stops = {"stop": list(marks), "stop_token_ids": sorted(self.stop_ids), "return_token_ids": True}
        asks: list[Ask] = [
            (url, self._body([list(ids)], budget, temperature) | stops | {"seed": seed, "logprobs": 1})
            for ids, budget, seed, url in zip(rows, budgets, seeds, where, strict=True)
        ]
        return [
            None if answer is None else _written(_choices(answer, 1, url)[0], url)
            for answer, (url, _) in zip(self.fleet.ask(asks), asks, strict=True)
        ]

    def _body(self, rows: list[list[int]], budget: int, temperature: float) -> dict[str, Any]:
        about = {"model": self.model, "prompt": rows, "max_tokens": budget, "temperature": temperature}
        return about | NEUTRAL | {"return_tokens_as_token_ids": True}


class RemoteSession:
    """Implements `TokenSession`. Rows that begin alike are at one server, which so reads their opening once.

    A row moves to another server when its own has died. Raises EndpointError when all have.
    """

    def __init__(self, engine: RemoteEngine, num_rows: int) -> None:
        self._engine = engine
        self.ids: list[list[int]] = [[] for _ in range(num_rows)]
        self._opening: list[Opening] = []
        self._home: dict[Opening, str] = {}
        self._counted: Counter[str] = Counter()
        weakref.finalize(self, engine.leave, self._counted)

    def read(self, told: Sequence[Sequence[int]]) -> None:
        """See `TokenSession`; it is read there when something is asked."""
        append_to(self.ids, told)
        self._opening = self._opening or [tuple(new) for new in told]

    def choose(
        self, legal: IntArray, uniforms: FloatArray, temperature: float = 1.0
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """See `TokenSession`."""
        size = len(self.ids)
        legal = np.broadcast_to(legal, (size, legal.shape[-1]))
        logits = np.zeros(legal.shape)
        todo = list(range(size))
        while todo:
            where = self._homes(todo)
            scores = self._engine.scores([self.ids[row] for row in todo], legal[todo], where)
            for row, found in zip(todo, scores, strict=True):
                logits[row] = 0.0 if found is None else found
            todo = [row for row, found in zip(todo, scores, strict=True) if found is None]
        picks, logprobs, probabilities = draw(logits / temperature, uniforms)
        ids = legal[np.arange(size), picks]
        for own, token in zip(self.ids, ids.tolist(), strict=True):
            own.append(token)
        return ids, logprobs, probabilities

    def write(
        self,
        budget: int,
        ends: Ends,
        uniforms: FloatArray,
        temperature: float = 1.0,
        marks: Sequence[str] = (),
    ) -> list[Written]:
        """See `TokenSession`. What a server writes beyond a row's end is dropped."""
        wrote = [Written() for _ in self.ids]
        todo = list(range(len(wrote)))
        while todo:
            done = [len(wrote[row].ids) for row in todo]
            answers = self._engine.written(
                [self.ids[row] for row in todo],
                [budget - length for length in done],
                [int(uniforms[row, length] * SEEDS) for row, length in zip(todo, done, strict=True)],
                temperature,
                marks,
                self._homes(todo),
            )
            for row, answer in zip(todo, answers, strict=True):
                for token, logprob in answer or ():
                    one = wrote[row]
                    if one.add(token, logprob, ends([*one.ids, token])):
                        self.ids[row].append(token)
                    if one.ended:
                        break
            if any(answer == [] for answer in answers):
                raise EndpointError("A server wrote nothing where a token was asked for.")
            todo = [row for row in todo if not wrote[row].ended and len(wrote[row].ids) < budget]
        return wrote

    def _homes(self, rows: Sequence[int]) -> list[str]:
        """The server of each row, one that is alive."""
        for row in rows:
            opening = self._opening[row]
            if self._home.get(opening) not in self._engine.fleet.some_alive():
                count = self._opening.count(opening)
                self._home[opening] = home = self._engine.home(opening, count)
                self._counted[home] += count
        return [self._home[self._opening[row]] for row in rows]


def draw(logits: FloatArray, uniforms: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """Inverse CDF at uniforms (B,): indices (B,), their log probabilities, and all probabilities (B, C)."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    edges = np.cumsum(probabilities, axis=1)
    passed = (uniforms[:, None] * edges[:, -1:] >= edges).sum(axis=1)
    picks = np.minimum(passed, logits.shape[1] - 1)
    chosen = probabilities[np.arange(len(picks)), picks]
    return picks, np.log(chosen), probabilities


def _choices(answer: Any, count: int, url: str) -> list[Mapping[str, Any]]:
    """The rows of an answer in the order in which they were asked. Raises EndpointError."""
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        if [int(choice["index"]) for choice in choices] != list(range(count)):
            raise ValueError(f"{len(choices)} rows where {count} were asked for")
    except (KeyError, TypeError, ValueError) as error:
        raise _useless(url, f"it holds no rows as they were asked for ({error})") from None
    return choices


def _scores(choice: Mapping[str, Any], legal: list[int], url: str) -> FloatArray:
    """(C,) the log probabilities of the legal tokens. Raises EndpointError when there is not one for each."""
    try:
        top = choice["logprobs"]["top_logprobs"][0]
        found = np.array([float(top[f"token_id:{token}"]) for token in legal])
    except (KeyError, TypeError, ValueError, IndexError):
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        raise _useless(
            url,
            "it lacks log probabilities of legal tokens. Expected a server that knows logprob_token_ids, as "
            "rmft serve and newer versions of vLLM do, or vLLM with --logprobs-mode processed_logprobs",
        )
    return found


def _written(choice: Mapping[str, Any], url: str) -> list[tuple[int, float]]:
    """Each token that was written, and its log probability. Raises EndpointError."""
    try:
        ids = [int(token) for token in choice["token_ids"]]
        logs = [float(each) for each in choice["logprobs"]["token_logprobs"]]
        return list(zip(ids, logs, strict=True))
    except (KeyError, TypeError, ValueError):
        raise _useless(url, "it lacks token_ids, or a log probability for each of them") from None


def _useless(url: str, what: str) -> EndpointError:
    return EndpointError(f"The answer of {url} can't be used: {what}.")
