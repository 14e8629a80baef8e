"""The baselines that a policy is compared with: made by name, tuned on validation, the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from rmft.bayes.optimum import optimum, refusal
from rmft.errors import ConfigError, RunDirectoryError
from rmft.evaluation.evaluate import evaluate, mean_regrets
from rmft.policies.baselines.catalogue import (
    FITTED,
    KNOWING,
    TUNED,
    baselines_for,
    describe,
    make_baseline,
    parse_spec,
)
from rmft.policies.baselines.fitted import FittedArms, fit_arms
from rmft.policies.baselines.known_prior import BayesOptimal, Priors
from rmft.policies.baselines.reference import Oracle
from rmft.policies.baselines.tuning import tune
from rmft.problems.setting import Setting
from rmft.problems.suites import ProblemBatch, Suite
from rmft.rollout import MakePolicy
from rmft.run_directory import RunDirectory
from rmft.types import Policy, RewardTable, Rules

BOUNDS = (Oracle.name, BayesOptimal.name)
"""Baselines that nobody could play: they bound what can be had."""

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Where nobody is to be told."""


def tuned(spec: str, suite: Suite, num_problems: int, say: Say = _silent) -> str:
    """The spec that `tuned:NAME` stands for: chosen on the suite's validation part, nowhere else."""
    if not spec.startswith(TUNED):
        return spec
    chosen_on = suite.draw("validation", num_problems)
    problems = [(each.setting.game, each.table, each.setting.regret_kind) for each in chosen_on]
    return tune(spec, problems, seed=0, say=say)


def baselines(specs: Iterable[str], suite: Suite, say: Say = _silent) -> dict[str, MakePolicy]:
    """Baselines by name; `tuned:NAME` gets its parameters here.

    say: told where a grid was too narrow. Raises UnknownNameError, ConfigError.
    """
    made: dict[str, MakePolicy] = {}
    arms: FittedArms | None = None
    settings = (*suite.settings("validation"), *suite.settings("held_out"))
    for spec in specs:
        _check_suits(spec, suite, settings)
        chosen = tuned(spec, suite, suite.validation.num_problems, say)
        name = chosen if chosen == spec else f"{TUNED}{chosen}"
        if parse_spec(chosen)[0] in FITTED:
            arms = arms or _fitted(suite)
            made[name] = partial(_whatever_the_table, make_baseline(chosen, arms=arms))
        elif chosen == Oracle.name:
            made[name] = partial(Oracle, regret={setting.rules: setting.regret_kind for setting in settings})
        else:
            made[name] = _maker(chosen, {setting.rules: setting.prior for setting in settings})
    return made


def _check_suits(spec: str, suite: Suite, settings: Iterable[Setting]) -> None:
    name = describe(parse_spec(spec.removeprefix(TUNED))[0]).name
    priors: dict[Rules, Setting] = {}
    for setting in (*suite.settings("train"), *settings) if name in FITTED else settings:
        suited = baselines_for(setting.rules, setting.prior, named=setting.names is not None)
        if setting.opponent is not None:
            suited.remove(Oracle.name)
        first = priors.setdefault(setting.rules, setting)
        if name in KNOWING and first.prior != setting.prior:
            why = f"nothing that is told of it tells it from '{first.name}', which has another prior"
        elif name in suited:
            continue
        elif name == Oracle.name:
            why = "what its opponent plays is not known before it does"
        elif name in FITTED:
            why = "its arms are anonymous, so what they paid in training says nothing of them here"
        elif name in KNOWING:
            why = str(KNOWING[name].refusal(setting.rules, setting.prior))
        else:
            why = f"{setting.feedback} feedback, rewards in {list(setting.rules.reward_range)}"
        raise ConfigError(
            f"The baseline '{name}' can't play '{setting.name}' of suite {suite.name} ({why}). "
            f"These can: {', '.join(each for each in suited if each != name)}."
        )


FITTED_ON = 1_000  # problems of the training part, as a run of seed 0 would draw them before its iterations


def _fitted(suite: Suite) -> FittedArms:
    return fit_arms(
        (batch.setting.rules, batch.table, batch.words.names)
        for batch in suite.draw("train", FITTED_ON)
        if batch.words.names is not None
    )


def _whatever_the_table(policy: Policy, table: RewardTable) -> Policy:  # noqa: ARG001
    return policy


def _maker(spec: str, priors: Priors) -> MakePolicy:
    if parse_spec(spec)[0] != Oracle.name:
        make_baseline(spec, priors=priors)  # a mistake shows now, before anything is played
    return lambda table: make_baseline(spec, table, priors)


def optima(problems: Iterable[ProblemBatch], say: Say) -> dict[str, float]:
    """The expected regret of optimal play, by setting, where it is known; see `rmft.bayes.optimum`."""
    found = {}
    for setting in (batch.setting for batch in problems):
        if refusal(setting.rules, setting.prior) is None:
            say(f"{setting.name}: working out the optimum")
            found[setting.name] = optimum(setting.rules, setting.prior, setting.regret_kind)
    return found


def by_strength(policies: Mapping[str, MakePolicy], suite: Suite, say: Say = _silent) -> list[str]:
    """The names of baselines, that of lowest regret on the suite's validation part first.

    So no rival is chosen by the results that it is shown beside. Those that know what is hidden, and only
    bound what can be had, are left out.
    """
    rivals = {name: make for name, make in policies.items() if name not in BOUNDS}
    if len(rivals) < 2:
        return list(rivals)
    say(f"Playing {len(rivals)} baselines on the validation part: which is the strongest")
    regrets = mean_regrets(rivals, suite.draw("validation", suite.validation.num_problems))
    return sorted(rivals, key=lambda name: regrets[name])


def best_baseline(run: RunDirectory, suite: Suite, say: Say) -> tuple[str, float] | None:
    """The suite's best baseline on the run's validation problems and its regret, kept in the run."""
    kept = run.read_json("baselines.json")
    if kept is None:
        say(f"Playing {len(suite.baselines)} baselines on the validation problems, to compare with")
        policies = baselines([name for name in suite.baselines if name not in BOUNDS], suite, say)
        if not policies:
            return None
        problems = suite.draw("validation", run.config.validation.num_problems)
        overall = evaluate(policies, problems, num_rollouts=1, seed=0).overall
        kept = {
            name: {key: overall[name].measures[key].model_dump() for key in ("regret", "suff_fail_freq")}
            for name in policies
        }
        run.write_json("baselines.json", kept)
    try:
        regrets = {name: float(measures["regret"]["mean"]) for name, measures in kept.items()}
        best = min(regrets, key=lambda name: regrets[name])
    except (ValueError, LookupError, TypeError):
        raise RunDirectoryError(
            f"'{run.path / 'baselines.json'}' is damaged; delete it, and 'rmft resume' plays them again."
        ) from None
    return best, regrets[best]
