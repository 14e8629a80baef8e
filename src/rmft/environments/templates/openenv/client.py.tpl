"""The client of __TITLE__."""

from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult
from openenv.core.env_server.types import State

from .models import BanditAction, BanditObservation


class BanditEnv(EnvClient[BanditAction, BanditObservation, State]):
    def _step_payload(self, action: BanditAction) -> dict[str, Any]:
        return {"answer": action.answer}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[BanditObservation]:
        seen, done = payload.get("observation", {}), payload.get("done", False)
        observation = BanditObservation(
            prompt=seen.get("prompt", ""), regret=seen.get("regret"), done=done, reward=payload.get("reward")
        )
        return StepResult(observation=observation, reward=payload.get("reward"), done=done)

    def _parse_state(self, payload: dict[str, Any]) -> State:
        return State(episode_id=payload.get("episode_id"), step_count=payload.get("step_count", 0))
