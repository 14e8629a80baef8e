"""The episodes that an agent plays for clients: one thread that decides, and a store that outlives a kill.

A step is on disk before it is answered for: the episode as it is then and, where the client named its request
by an idempotency key, the answer, in one transaction. The same request again gets the same answer, and
nothing is decided or observed twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rmft.agent_server.schemas import DecideRequest, EpisodeRequest, ObserveRequest
from rmft.agents.agent import Agent
from rmft.agents.episodes import Choice, Episode
from rmft.errors import EpisodeError, RmftError
from rmft.server.refusals import ApiError
from rmft.server.store import Record, Store, new_id, now

MOST_KEPT = 256  # episodes in memory, if the policy has room for as many; others are read from the store


class Desk:
    """Where clients' requests reach the agent, one after the other, in a thread of its own."""

    def __init__(self, agent: Agent, store: Store) -> None:
        self.agent, self._store = agent, store
        self._thread = ThreadPoolExecutor(1, "agent")
        self._recent: OrderedDict[str, Episode] = OrderedDict()

    async def do(self, work: Callable[[], Record]) -> Record:
        """What `work` returns, done by the thread. Raises ApiError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except EpisodeError as error:
            raise ApiError(str(error), status=409, code="out_of_turn") from None
        except RmftError as error:
            raise ApiError(str(error), code="invalid_value") from None

    def close(self) -> None:
        """End the thread after what it is at."""
        self._thread.shutdown(cancel_futures=True)

    def begin(self, asked: EpisodeRequest, key: str | None) -> Record:
        """A new episode."""

        def act() -> tuple[str, Record]:
            episode_id = new_id("episode")
            self._recent[episode_id] = self.agent.episode(**asked.arguments())
            about = {"id": episode_id, "object": "episode", "created_at": now()}
            return episode_id, self._shown(about, self._recent[episode_id])

        return self._once(key, "begin", asked.model_dump_json(), act)

    def decide(self, episode_id: str, asked: DecideRequest, key: str | None) -> Record:
        """The next choice."""

        def act() -> tuple[str, Record]:
            episode = self._episode(episode_id)
            choice = episode.decide(asked.context)
            round_index = {"episode": episode_id, "round": episode.num_rounds + 1}
            return episode_id, {"object": "choice", **round_index, **_choice(choice)}

        body = "" if asked.context is None else asked.model_dump_json()
        return self._once(key, f"decide {episode_id}", body, act)

    def observe(self, episode_id: str, asked: ObserveRequest, key: str | None) -> Record:
        """The episode after what came of its choice is told."""

        def act() -> tuple[str, Record]:
            episode = self._episode(episode_id)
            episode.observe(asked.reward, rewards=asked.rewards)
            return episode_id, self._shown(self._store.get("episodes", episode_id), episode)

        return self._once(key, f"observe {episode_id}", asked.model_dump_json(), act)

    def show(self, episode_id: str) -> Record:
        """How far an episode is, with the choice that waits for its reward."""
        return self._shown(self._store.get("episodes", episode_id), self._episode(episode_id))

    def remove(self, episode_id: str) -> Record:
        """Forget an episode, and the answers to its requests."""
        self._store.get("episodes", episode_id)
        with self._store.transaction():
            self._store.remove("episodes", episode_id)
            self._store.remove_of("repeatable", episode_id)
        self._recent.pop(episode_id, None)
        return {"id": episode_id, "object": "episode", "deleted": True}

    def _once(self, key: str | None, what: str, asked: str, act: Callable[[], tuple[str, Record]]) -> Record:
        """What `act` answers, or answered when the same was asked with the same key before."""
        name = hashlib.sha256(f"{what}\n{key}".encode()).hexdigest()
        kept = None if key is None else self._store.find("repeatable", name)
        if kept is not None:
            if kept["asked"] != asked:
                raise ApiError(
                    f"The idempotency key {key!r:.80} was sent with another request. Choose a new key for "
                    "each request, and the same one only to repeat it.",
                    status=422,
                    code="idempotency_key_reused",
                )
            return dict(kept["answer"])
        if key is not None or what == "begin":
            self._store.check_room(len(asked))
        try:
            episode_id, answer = act()
            with self._store.transaction():
                self._keep(episode_id, answer)
                if key is not None:
                    self._store.add("repeatable", {"id": name, "asked": asked, "answer": answer}, episode_id)
        except (RmftError, ApiError):
            raise
        except BaseException:
            self._recent.clear()  # what is in memory may be ahead of what is kept
            raise
        self._make_room()
        return answer

    def _keep(self, episode_id: str, answer: Record) -> None:
        state = self._recent[episode_id].to_json()
        if self._store.find("episodes", episode_id) is None:
            about = {name: answer[name] for name in ("id", "object", "created_at")}
            self._store.add("episodes", {**about, "state": state})
        else:
            self._store.change("episodes", episode_id, state=state)

    def _episode(self, episode_id: str) -> Episode:
        """An episode, from memory or from the store. Raises ApiError (404)."""
        if episode_id not in self._recent:
            state = self._store.get("episodes", episode_id)["state"]
            self._recent[episode_id] = self.agent.resume(state)
        self._recent.move_to_end(episode_id)
        return self._recent[episode_id]

    def _make_room(self) -> None:
        """Let go of the episodes that were used the longest ago, of those that do not fit together."""
        policy, taken = self.agent.policy, 0.0
        for number, (episode_id, episode) in enumerate(reversed(list(self._recent.items()))):
            taken += 1 / policy.rows_at_once(episode.config.rules)
            if number and (taken > 1 or number >= MOST_KEPT or episode.done):
                self._recent.pop(episode_id).close()

    def _shown(self, record: Record, episode: Episode) -> Record:
        config, choice = episode.config, episode.choice
        bounds = [None if abs(bound) == float("inf") else bound for bound in config.reward_range]
        return {
            **{name: record[name] for name in ("id", "object", "created_at")},
            "agent": self.agent.identity,
            "options": list(config.options),
            "horizon": config.horizon,
            "feedback": config.feedback,
            "reward_range": bounds,
            "context": None if config.context is None else [column.name for column in config.context.columns],
            "seed": config.seed,
            "num_rounds": episode.num_rounds,
            "done": episode.done,
            "choice": None if choice is None else _choice(choice),
        }


def _choice(choice: Choice) -> dict[str, Any]:
    return {
        "arm": choice.arm,
        "name": choice.name,
        "probabilities": None if choice.probabilities is None else list(choice.probabilities),
        "reasoning": choice.reasoning,
    }
