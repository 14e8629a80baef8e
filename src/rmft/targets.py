"""What a user names becomes policies that play: a run, a checkpoint's folder, a baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rmft.errors import ConfigError, UnknownNameError
from rmft.policies.baselines.catalogue import TUNED, baseline_names, make_baseline, parse_spec
from rmft.policies.baselines.reference import Oracle
from rmft.policies.config import HostedConfig
from rmft.problems.suites import Suite
from rmft.providers.config import BudgetConfig
from rmft.rivals import baselines
from rmft.rollout import MakePolicy, Player
from rmft.run_directory import RunDirectory, policy_in
from rmft.types import Policy, PolicyRef
from rmft.wiring.backends import hosted_backend
from rmft.wiring.policies import load_policy, torch_threads

if TYPE_CHECKING:
    from rmft.hosting import HostedBackend

Playing = Callable[[PolicyRef], MakePolicy]


def check_path(target: str) -> None:
    """Whether a target leads somewhere: to a folder or a baseline.

    Raises RunDirectoryError, which names runs nearby, and UnknownNameError.
    """
    if os.path.isdir(target):
        return
    if os.sep in target.partition("(")[0]:
        RunDirectory.open(Path(target), lock=False)
    elif (name := parse_spec(target)[0].removeprefix(TUNED)) not in baseline_names():
        known = [*baseline_names(), *(str(file.parent) for file in Path().glob("*/run.json"))]
        raise UnknownNameError("run, checkpoint or baseline", name, known)


def policies_of(
    target: str,
    run: RunDirectory | None,
    suite: Suite,
    against: list[str] | None,
    playing: Playing,
    say: Callable[[str], None],
) -> dict[str, MakePolicy]:
    """The target's policy, and those that it is set against (None: the start and the suite's baselines).

    say: told where the grid of a tuned baseline was too narrow.
    """
    if run is not None:
        policies = of_run(run, against, playing)
    elif os.path.isdir(target):
        policies = {Path(target).name: playing(policy_in(Path(target)))}
    else:
        policies = baselines([target], suite, say)
    if run is None and "start" in (against or ()):
        raise ConfigError(f"'start' is the policy before training of a run; '{target}' is no run.")
    others = rivals_in(list(against or suite.baselines), suite, playing, say)
    return policies | {name: each for name, each in others.items() if name not in policies}


def of_run(run: RunDirectory, against: list[str] | None, playing: Playing) -> dict[str, MakePolicy]:
    """A run's best policy and, where it is a rival, that before training."""
    policies = {"best": playing(run.policy(run.best_iteration()))}
    if not against or "start" in against:
        policies["start"] = playing(run.policy(0))
    return policies


def load_agent(target: str) -> tuple[Policy, Path | None]:
    """The policy of a run (its best), a checkpoint's folder or a baseline, and the folder that it lies in.

    It plays an arm wherever it can. Raises RunDirectoryError, UnknownNameError, ConfigError.
    """
    check_path(target)
    where = Path(target)
    if not os.path.isdir(where):
        name = parse_spec(target)[0]
        if name == Oracle.name or name.startswith(TUNED):
            why = "knows what is hidden" if name == Oracle.name else "has no parameters yet"
            raise ConfigError(f"'{target}' {why}, so it can't decide in your program. See 'rmft baselines'.")
        return make_baseline(target), None
    policy = policy_in(where)
    if policy.kind == "hosted":
        raise ConfigError(
            f"'{target}' trains a hosted model, which its provider plays; an agent plays in this process."
        )
    if os.path.exists(where / "run.json"):
        torch_threads(RunDirectory.open(where, lock=False).config.num_threads)
    return load_policy(Player(policy, sample_arms=True)), policy.path


def rivals_in(
    specs: list[str], suite: Suite, playing: Playing, say: Callable[[str], None]
) -> dict[str, MakePolicy]:
    """Rivals that are no part of the target: policies in folders, then baselines.

    say: see `policies_of`.
    """
    folders = {spec: playing(policy_in(Path(spec))) for spec in specs if os.path.isdir(spec)}
    named = [spec for spec in specs if spec != "start" and spec not in folders]
    return folders | baselines(named, suite, say)


@contextmanager
def players(suite: Suite, one_at_a_time: bool = False) -> Iterator[Playing]:
    """What makes policies in folders play. Those of one hosted run share its connection and its journal.

    one_at_a_time: whether a policy is loaded when it plays, and then kept until another one does.
    """
    hosted: dict[Path, HostedBackend] = {}
    loaded_last: dict[Path, Policy] = {}
    with ExitStack() as opened:

        def playing(policy: PolicyRef) -> MakePolicy:
            if policy.kind != "hosted" and one_at_a_time:

                def load(_: object) -> Policy:
                    if policy.path not in loaded_last:
                        loaded_last.clear()
                        loaded_last[policy.path] = load_policy(Player(policy))
                    return loaded_last[policy.path]

                return load
            if policy.kind != "hosted":
                loaded = load_policy(Player(policy))
                return lambda _: loaded
            folder = policy.path.parent.parent
            if folder not in hosted:
                run = RunDirectory.open(folder, lock=False)
                assert isinstance(run.config.policy, HostedConfig)
                config = run.config.model_copy(update={"budget": BudgetConfig()})  # which is training's
                backend = hosted_backend(
                    config, run.config.policy, [suite], folder, "answers-evaluation.jsonl"
                )
                hosted[folder] = opened.enter_context(closing(backend))
            asked = hosted[folder].load(Player(policy))
            return lambda _: asked

        yield playing
