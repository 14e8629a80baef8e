"""Play every policy on the same problems with the same luck, and compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from rmft.errors import ConfigError
from rmft.evaluation.comparing import Played, evaluation_of, recorded_in
from rmft.evaluation.measures import RECORDED, histogram, measure
from rmft.lenient import check_name
from rmft.problems.suites import ProblemBatch
from rmft.regret import regret_curve
from rmft.results import Evaluation
from rmft.rollout import MakePolicy, Rollouts, rollout_in_pieces
from rmft.types import IntArray, Trajectories

Keep = Callable[[str, ProblemBatch, IntArray, IntArray, Trajectories], None]
"""Told of everything that is played: the policy, the batch, for each row its problem's place in the batch and
its number among that problem's rollouts, and the trajectories."""

Players = dict[str, list[tuple[MakePolicy, Keep | None]]]
"""By policy, who plays it, one for every training seed that it has, and who is told of it."""

PLAYING = 0xE7A1  # the path of the policies' random numbers, apart from those that tables are drawn from


def evaluate(
    policies: Mapping[str, MakePolicy],
    batches: Sequence[ProblemBatch],
    num_rollouts: int,
    seed: int,
    progress: Callable[[str], None] | None = None,
    *,
    suite: str = "",
    part: str = "",
    keep: Keep | None = None,
    optima: Mapping[str, float] | None = None,
) -> Evaluation:
    """Every policy plays `num_rollouts` rollouts of every problem, on the same tables.

    Rollout l of a problem draws from the same stream whichever policy plays it. `progress` is told
    in words what is played next; suite and part are names to record; `keep` is given what was
    played. optima: the expected regret of optimal play, by setting, where it is known. Kept in memory: 8
    bytes x policies x problems x (T + 9), and while playing about 300 MB more.
    Raises ConfigError when there is nothing to play, a setting is given twice or a name can't be printed.
    """
    _check(list(policies), batches, num_rollouts, suite, part)
    played = _play_all(
        {name: [(make_policy, keep)] for name, make_policy in policies.items()},
        batches, num_rollouts, seed, progress,
    )  # fmt: skip
    return evaluation_of(batches, played, num_rollouts, seed, suite=suite, part=part, optima=optima)


def evaluate_seeds(
    by_seed: Mapping[int, Mapping[str, MakePolicy]],
    others: Mapping[str, MakePolicy],
    batches: Sequence[ProblemBatch],
    num_rollouts: int,
    seed: int,
    progress: Callable[[str], None] | None = None,
    *,
    suite: str = "",
    part: str = "",
    keep: Mapping[int, Keep] | None = None,
    optima: Mapping[str, float] | None = None,
) -> tuple[Evaluation, dict[int, Evaluation]]:
    """Policies of several training seeds, and others that have none, such as baselines.

    by_seed: of every training seed, policies of the same names. keep: of each, what is given all that its
    policies and the others played. Returns the evaluation over seeds, whose intervals are clustered by seed
    and problem, and each seed's own, which is what `evaluate` gives for its policies and the others. The rest
    is as for `evaluate`; the others play once.
    """
    seeds = list(by_seed)
    names = list(next(iter(by_seed.values()), {}))
    if not seeds or any(list(policies) != names for policies in by_seed.values()):
        raise ConfigError(
            f"Every training seed needs policies of the same names; found those of {len(seeds)} seeds: "
            f"{[list(policies) for policies in by_seed.values()]}."
        )
    _check([*names, *others], batches, num_rollouts, suite, part)
    kept = keep or {}

    def keep_of_all(*given: Any) -> None:
        for each in kept.values():
            each(*given)

    players: Players = {
        name: [(policies[name], kept.get(number)) for number, policies in by_seed.items()] for name in names
    }
    players |= {name: [(make_policy, keep_of_all)] for name, make_policy in others.items()}
    played = _play_all(players, batches, num_rollouts, seed, progress)
    own = {
        number: evaluation_of(
            batches,
            [{name: [each[place if name in names else 0]] for name, each in one.items()} for one in played],
            num_rollouts, seed, suite=suite, part=part, optima=optima,
        )
        for place, number in enumerate(seeds)
    }  # fmt: skip
    return evaluation_of(
        batches, played, num_rollouts, seed,
        suite=suite, part=part, seeds=seeds, trained=names, optima=optima,
    ), own  # fmt: skip


def mean_regrets(
    policies: Mapping[str, MakePolicy], batches: Sequence[ProblemBatch], seed: int = 0
) -> dict[str, float]:
    """Each policy's mean regret over all problems, one rollout of each; without intervals, so quick."""
    one_each: Players = {name: [(make_policy, None)] for name, make_policy in policies.items()}
    played = _play_all(one_each, batches, 1, seed, None)
    regret = RECORDED.index("regret")
    return {
        name: float(np.concatenate([one[name][0].measures[:, regret] for one in played]).mean())
        for name in policies
    }


def _check(
    policies: list[str], batches: Sequence[ProblemBatch], num_rollouts: int, suite: str, part: str
) -> None:
    """Raises ConfigError as `evaluate` says."""
    names = [batch.setting.name for batch in batches]
    if not policies or not names or num_rollouts < 1 or not all(len(batch.indices) for batch in batches):
        raise ConfigError(
            f"An evaluation needs a policy, a problem in every setting and a rollout; found {len(policies)} "
            f"policies, {[len(batch.indices) for batch in batches]} problems and {num_rollouts} rollouts."
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"Settings need names of their own; found {names}.")
    try:
        for name in (*policies, *names, suite, part):
            check_name(name)
    except ValueError as error:
        raise ConfigError(f"A policy, setting, suite or part has a wrong name: {error}.") from None


def _play_all(
    players: Players,
    batches: Sequence[ProblemBatch],
    num_rollouts: int,
    seed: int,
    progress: Callable[[str], None] | None,
) -> list[dict[str, list[Played]]]:
    """What every player of every policy did, setting by setting."""
    found, names = [], recorded_in(batches)
    for number, batch in enumerate(batches):
        played: dict[str, list[Played]] = {}
        for turn, (name, makers) in enumerate(players.items(), start=1):
            for place, (make_policy, keep) in enumerate(makers, start=1):
                if progress is not None:
                    which = f", seed {place} of {len(makers)}" if len(makers) > 1 else ""
                    progress(f"{batch.setting.name}: {name}{which} ({turn} of {len(players)})")
                kept = None if keep is None else partial(keep, name, batch)
                played.setdefault(name, []).append(
                    _play(make_policy, batch, number, num_rollouts, seed, names, kept)
                )
        found.append(played)
    return found


def _play(
    make_policy: MakePolicy,
    batch: ProblemBatch,
    setting_number: int,
    num_rollouts: int,
    seed: int,
    names: Sequence[str],
    keep: Callable[[IntArray, IntArray, Trajectories], None] | None,
) -> Played:
    setting, rules = batch.setting, batch.setting.rules
    num_problems, horizon = len(batch.indices), rules.horizon
    measures = np.zeros((num_problems, len(names)))
    curves = np.zeros((num_problems, horizon))
    counts, edges = histogram(np.zeros(0), horizon)
    rows = np.arange(num_problems * num_rollouts) // num_rollouts
    paths = [
        (PLAYING, setting_number, problem, rollout)
        for problem in batch.indices.tolist()
        for rollout in range(num_rollouts)
    ]
    rollouts = Rollouts(rules, setting.game, batch.table, batch.words, rows, seed, paths)
    done = 0
    for trajectories in rollout_in_pieces(make_policy, rollouts):
        problems = rows[done : done + len(trajectories)]
        if keep is not None:
            keep(problems, np.arange(done, done + len(trajectories)) % num_rollouts, trajectories)
        done += len(trajectories)
        measured = measure(trajectories, setting.regret_kind)
        undefined = np.full(len(trajectories), np.nan)
        np.add.at(measures, problems, np.stack([measured.get(name, undefined) for name in names], axis=1))
        np.add.at(curves, problems, regret_curve(trajectories, setting.regret_kind))
        counts += histogram(horizon * measured["best_arm_freq"], horizon)[0]
    return Played(measures / num_rollouts, curves / num_rollouts, counts, edges)
