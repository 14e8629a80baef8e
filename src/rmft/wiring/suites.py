"""The suites of a run, and who plays the other side of their games."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from rmft.config import RunConfig
from rmft.errors import ConfigError
from rmft.own_code import as_kept
from rmft.policies import demonstration
from rmft.policies.baselines.catalogue import make_baseline
from rmft.problems.games import SELF
from rmft.problems.setting import Setting
from rmft.problems.suites import PARTS, Suite, load_suite, suite_from
from rmft.rollout import Player
from rmft.run_directory import STAGE_SUITES, SUITE, RunDirectory, policy_in
from rmft.types import Policy, PolicyRef, Rules
from rmft.wiring.policies import load_policy


def load_suites(config: RunConfig, *, trust: bool = False) -> dict[str, Suite]:
    """The suites of a run and its stages by the names that the config has for them.

    Raises as `load_suite`.
    """
    found = {name: load_suite(name, trust=trust) for name in _suite_names(config)}
    return {name: seated(suite, config.opponent) for name, suite in found.items()}


def suites_of(
    run: RunDirectory, *, trust: bool, say: Callable[[str], None] = lambda _: None
) -> dict[str, Suite]:
    """The suites of a run as they were when it began; classes that they name are run only with `trust`.

    These are looked for beside the file that the config calls the suite, and in the current directory; where
    one was changed since, the run's own copy is taken, and `say` is told. Raises ConfigError when a suite is
    damaged.
    """
    found = {}
    for number, name in enumerate(_suite_names(run.config)):
        where = run.path / (SUITE if name == run.config.suite else STAGE_SUITES)
        beside = str(Path(name) if os.path.isdir(name) else Path(name).parent)
        folder = as_kept(run.own_code(number), beside, say)
        found[name] = seated(suite_from(run.suites.get(name), str(where), folder, trust=trust))
    return found


def seated(suite: Suite, opponent: str | None = None) -> Suite:
    """The suite with the policies that play the other side of its games, ready to be loaded where they play.

    opponent: whom to take in place of those that its settings name. A run is pinned to the checkpoint that is
    its best now. Raises ConfigError, UnknownNameError and RunDirectoryError for one that can't play, and
    ConfigError for one where there is no game.
    """

    def seat(setting: Setting) -> Setting:
        if setting.opponent is None:
            return setting
        return setting.against(*_opponent(opponent or setting.opponent, setting.rules))

    games = [setting for part in PARTS for setting in suite.settings(part) if setting.opponent is not None]
    if opponent is not None and not games:
        raise ConfigError(f"Found the opponent '{opponent}'; the suite {suite.name} has no games to play in.")
    return suite.changed(seat) if games else suite


def _opponent(name: str, rules: Rules) -> tuple[str, Callable[[], Policy] | None]:
    """What to call an opponent from now on, and what loads it."""
    if name == SELF:
        return name, None
    if os.sep not in name and not os.path.isdir(name):
        demonstration.check(name, rules, key="opponent")
        return name, partial(make_baseline, name)
    found = policy_in(Path(name).expanduser())
    if found.kind == "hosted":
        raise ConfigError(f"opponent '{name}' is a hosted model; expected one that plays in this process.")
    path = Path(os.path.abspath(found.path))
    if not path.is_dir():
        raise ConfigError(
            f"opponent '{name}' is no folder; expected a run's or a checkpoint's, or a baseline."
        )
    return str(path), partial(_loaded_opponent, PolicyRef(found.kind, path))


@lru_cache(maxsize=2)
def _loaded_opponent(policy: PolicyRef) -> Policy:
    return load_policy(Player(policy))


def _suite_names(config: RunConfig) -> list[str]:
    return list(dict.fromkeys([config.suite, *(stage.suite for stage in config.schedule())]))
