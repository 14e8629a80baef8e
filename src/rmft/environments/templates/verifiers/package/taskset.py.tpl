"""__TITLE__: problems of rmft as tasks, and the exchange in which a model plays one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import verifiers.v1 as vf
from rmft import Env

SUITE = Path(__file__).with_name("suite.yaml")


class BanditData(vf.TaskData):
    info: dict[str, Any]
    """The part and the number of the problem."""


class BanditTask(vf.Task[BanditData, vf.State, vf.TaskConfig]):
    pass


class BanditConfig(vf.TasksetConfig):
    part: Literal["train", "validation", "held_out"] = "train"
    num_tasks: int = 1000


class BanditTaskset(vf.Taskset[BanditTask, BanditConfig]):
    def load(self) -> Iterator[BanditTask]:
        problems = Env(SUITE, self.config.part)
        for seed in range(self.config.num_tasks):
            prompt, _ = problems.reset(seed)
            opening, _, question = prompt.partition("\n\n")
            data = BanditData(
                name=f"__NAME__#{self.config.part}-{seed}",
                prompt=question,
                system_prompt=opening,
                info={"part": self.config.part, "seed": seed},
            )
            yield BanditTask(data, self.config.task)


class BanditEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class BanditEnv(vf.Env[BanditEnvConfig]):
    async def run(self, task: Any, agents: Any) -> None:
        problem = Env(SUITE, task.data.info["part"])
        problem.reset(task.data.info["seed"])
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated:
                prompt, _, done, _ = problem.step(segment.last_reply)
                if done:
                    break
                segment = await interaction.turn(prompt)
        interaction.trace.record_reward("minus_regret", -problem.regret(), 1.0)
