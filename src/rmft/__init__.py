"""rmft: Iterative Regret-Minimization Fine-Tuning.

The names in `__all__` are the public face: they stay, and more may come. Every other module and name is
internal and may change with any version.

    train(config)       a run of the method, kept in a directory
    evaluate(run)       a run, a checkpoint or a baseline on problems that were not trained on
    Agent.load(run)     the trained policy in your own program, a line per decision
    Env(suite)          its problems one at a time, for training frameworks; rmft.environments has faces on it
    show(run)           its report, in a notebook inline; plots(run): its figures
    load_suite(name)    a named set of problems, or one from your own YAML file

Nothing is imported before it is asked for, so that `import rmft` is quick and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmft.agents.agent import Agent
    from rmft.agents.episodes import Choice, Episode, Episodes
    from rmft.api import evaluate, train
    from rmft.environments.env import Env
    from rmft.errors import RmftError
    from rmft.notebook import plots, show
    from rmft.problems.suites import Suite, load_suite
    from rmft.results import Evaluation
    from rmft.types import (
        Decisions,
        Environment,
        Histories,
        Observation,
        Policy,
        PolicyRef,
        RewardTable,
        Round,
        RowHistory,
        Rules,
        Shown,
        Trainer,
        TrainingBatch,
        TrainingStep,
        Trajectories,
        Turn,
        Words,
    )

__version__ = "0.2.0"

__all__ = [
    "Agent",
    "Choice",
    "Decisions",
    "Env",
    "Environment",
    "Episode",
    "Episodes",
    "Evaluation",
    "Histories",
    "Observation",
    "Policy",
    "PolicyRef",
    "RewardTable",
    "RmftError",
    "Round",
    "RowHistory",
    "Rules",
    "Shown",
    "Suite",
    "Trainer",
    "TrainingBatch",
    "TrainingStep",
    "Trajectories",
    "Turn",
    "Words",
    "evaluate",
    "load_suite",
    "plots",
    "show",
    "train",
]

_HOMES = {
    "Agent": "agents.agent",
    "Choice": "agents.episodes",
    "Env": "environments.env",
    "Episode": "agents.episodes",
    "Episodes": "agents.episodes",
    "Evaluation": "results",
    "RmftError": "errors",
    "Suite": "problems.suites",
    "evaluate": "api",
    "load_suite": "problems.suites",
    "plots": "notebook",
    "show": "notebook",
    "train": "api",
}
"""The module below this one that a name of the face is defined in; that of the nouns is `types`."""


if not TYPE_CHECKING:  # or every misspelt name would be of type Any

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'rmft' has no attribute {name!r}")
        return getattr(import_module(f"rmft.{_HOMES.get(name, 'types')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
