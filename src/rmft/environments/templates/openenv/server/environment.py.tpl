"""__TITLE__: problems of rmft, one at a time."""

from pathlib import Path
from typing import Any
from uuid import uuid4

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import State
from rmft import Env

try:
    from ..models import BanditAction, BanditObservation
except ImportError:
    from models import BanditAction, BanditObservation

SUITE = Path(__file__).with_name("suite.yaml")
SPLITS = ("train", "validation", "held_out")


class BanditEnvironment(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._problem, self._state, self._begun = Env(SUITE), State(), 0

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **chosen: Any
    ) -> BanditObservation:
        number = chosen.get("index", seed)
        if number is None:
            number, self._begun = self._begun, self._begun + 1
        self._state = State(episode_id=episode_id or str(uuid4()), step_count=0)
        prompt, _ = self._problem.reset(number, chosen.get("split"))
        return BanditObservation(prompt=prompt)

    def step(self, action: BanditAction, *_: Any, **__: Any) -> BanditObservation:
        prompt, reward, done, _ = self._problem.step(action.answer)
        self._state.step_count += 1
        return BanditObservation(
            prompt=prompt, reward=reward, done=done, regret=self._problem.regret() if done else None
        )

    @property
    def state(self) -> State:
        return self._state

    def list_splits(self) -> list[str]:
        return list(SPLITS)

    def num_tasks(self, split: str) -> int:
        counts = {"validation": self._problem.suite.validation, "held_out": self._problem.suite.held_out}
        return counts[split].num_problems if split in counts else 2**31

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        return {"id": f"{split}-{index}", "index": index}
