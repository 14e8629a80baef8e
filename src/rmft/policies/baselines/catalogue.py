"""The baselines by name: what they are, where they come from, and the grids that tuning looks in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from rmft.bayes.prior import Prior
from rmft.errors import ConfigError, UnknownNameError
from rmft.policies.baselines.adversarial import Exp3, Rexp3
from rmft.policies.baselines.base import Baseline
from rmft.policies.baselines.contextual import LinearEpsilonGreedy, LinearThompson, LinUCB
from rmft.policies.baselines.fitted import ConstantBest, Fitted, FittedArms, PriorGreedy
from rmft.policies.baselines.full_information import (
    FTPL,
    FTRL,
    FadingLeader,
    FixedShare,
    FollowTheLeader,
    Hedge,
)
from rmft.policies.baselines.indices import (
    KLUCB,
    UCB,
    UCB1,
    BayesUCB,
    EpsilonGreedy,
    Greedy,
    OptimisticGreedy,
    WinStayLoseShift,
)
from rmft.policies.baselines.known_prior import BayesOptimal, KnowsPrior, PosteriorGreedy, Priors
from rmft.policies.baselines.moving import (
    ChangeFilter,
    DiscountedBayesUCB,
    DiscountedThompson,
    DiscountedUCB,
    SlidingWindowUCB,
)
from rmft.policies.baselines.reference import Oracle, Uniform
from rmft.policies.baselines.sampling import GaussianThompson, SharpenedThompson, Thompson
from rmft.types import Feedback, Policy, RewardTable, Rules

TUNED = "tuned:"


@dataclass(frozen=True, slots=True)
class Entry:
    """One baseline: its class, one line on it, its source, and the specs that tuning tries.

    in_noise: its parameters in units of reward, whose grids tuning stretches where rewards have no range.
    """

    policy: type[Baseline]
    summary: str
    source: str
    grid: tuple[str, ...] = ()
    in_noise: tuple[str, ...] = ()


def _grid(name: str, parameter: str, values: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(f"{name}({parameter}={value})" for value in values)


CATALOGUE: dict[str, Entry] = {
    "uniform": Entry(Uniform, "every arm equally often, whatever was seen", "-"),
    "greedy": Entry(Greedy, "highest mean so far, every arm once first", "Sutton & Barto 2018, 2.2"),
    "optimistic-greedy": Entry(
        OptimisticGreedy,
        "highest mean, imagined successes added",
        "Sutton & Barto 2018, 2.6",
        tuple(
            f"optimistic-greedy(pseudo_successes={s}, pseudo_failures={f})"
            for s, f in (
                (1, 0),
                (1, 0.2),
                (1.5, 0.3),
                (2, 0.2),
                (2, 0.5),
                (3, 0.5),
                (3, 1),
                (4, 0.5),
                (4, 1),
                (6, 1),
            )
        ),
    ),
    "epsilon-greedy": Entry(
        EpsilonGreedy,
        "highest mean, an arm at random with probability epsilon",
        "Sutton & Barto 2018, 2.2",
        _grid("epsilon-greedy", "epsilon", (0.01, 0.02, 0.05, 0.1, 0.2)),
    ),
    "win-stay": Entry(WinStayLoseShift, "the last arm again if it paid well, else another", "Robbins 1952"),
    "ucb1": Entry(UCB1, "mean + sqrt(2 ln t / n), as published", "Auer et al. 2002"),
    "ucb": Entry(
        UCB,
        "mean + coefficient * sqrt(ln t / n)",
        "Auer et al. 2002",
        _grid("ucb", "coefficient", (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 2.0)),
        in_noise=("coefficient",),
    ),
    "kl-ucb": Entry(KLUCB, "largest mean that a KL ball allows", "Garivier & Cappé 2011"),
    "bayes-ucb": Entry(
        BayesUCB,
        "a quantile of every arm's Beta posterior",
        "Kaufmann et al. 2012",
        (
            *_grid("bayes-ucb", "quantile", (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)),
            "bayes-ucb(quantile=None)",
        ),
    ),
    "thompson": Entry(Thompson, "best arm of one draw from the Beta posterior", "Thompson 1933"),
    "sharpened-thompson": Entry(
        SharpenedThompson,
        "Thompson sampling, its posterior counts multiplied",
        "Chapelle & Li 2011",
        _grid("sharpened-thompson", "sharpness", (2, 3, 4, 6, 8, 10, 20)),
    ),
    "gaussian-thompson": Entry(
        GaussianThompson,
        "Thompson sampling with a Gaussian posterior",
        "Agrawal & Goyal 2013",
        tuple(
            f"gaussian-thompson(prior_mean={mean}, prior_std={prior}, noise_std={noise})"
            for mean, prior in ((0, 0.5), (0, 1), (0.5, 0.3))
            for noise in (0.12, 0.25, 0.5, 1)
        ),
        in_noise=("prior_mean", "prior_std", "noise_std"),
    ),
    "exp3": Entry(
        Exp3,
        "exponential weights on importance-weighted rewards",
        "Auer et al. 2002b",
        _grid("exp3", "exploration", (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)),
    ),
    "rexp3": Entry(
        Rexp3,
        "Exp3, started afresh as often as the variation budget asks",
        "Besbes et al. 2014",
        _grid("rexp3", "variation_budget", (0.1, 0.3, 1, 3)),
    ),
    "discounted-ucb": Entry(
        DiscountedUCB,
        "UCB on fading counts",
        "Garivier & Moulines 2011",
        tuple(
            f"discounted-ucb(discount={discount}, coefficient={c})"
            for discount in (0.8, 0.9, 0.95, 0.98, 0.99)
            for c in (0.1, 0.2, 0.4, 0.7)
        ),
        in_noise=("coefficient",),
    ),
    "sliding-window-ucb": Entry(
        SlidingWindowUCB,
        "UCB on the last rounds only",
        "Garivier & Moulines 2011",
        tuple(
            f"sliding-window-ucb(window={window}, coefficient={c})"
            for window in (10, 20, 30, 50)
            for c in (0.1, 0.2, 0.4, 0.7)
        ),
        in_noise=("coefficient",),
    ),
    "discounted-thompson": Entry(
        DiscountedThompson,
        "Thompson sampling on fading counts",
        "Raj & Kalyani 2017",
        _grid("discounted-thompson", "discount", (0.8, 0.9, 0.95, 0.98, 0.99)),
    ),
    "discounted-bayes-ucb": Entry(
        DiscountedBayesUCB,
        "a quantile of every arm's fading Beta posterior",
        "this project",
        tuple(
            f"discounted-bayes-ucb(discount={discount}, quantile={quantile})"
            for discount in (0.8, 0.85, 0.9, 0.95)
            for quantile in (0.7, 0.75, 0.8, 0.85, 0.9)
        ),
    ),
    "change-filter": Entry(
        ChangeFilter,
        "a quantile of what is believed since the last change of all means",
        "Mellor & Shapiro 2013",
        tuple(
            f"change-filter(rate={rate}, quantile={quantile})"
            for rate in (0.01, 0.02, 0.04, 0.08, 0.16)
            for quantile in (0.6, 0.7, 0.8, 0.9)
        ),
    ),
    "linucb": Entry(
        LinUCB,
        "ridge regression on what is shown, plus its standard error",
        "Li et al. 2010",
        tuple(
            f"linucb(coefficient={coefficient}, ridge={ridge})"
            for ridge in (0.3, 1, 3)
            for coefficient in (0, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5)
        ),
    ),
    "linear-thompson": Entry(
        LinearThompson,
        "one draw of the ridge regression's weights",
        "Agrawal & Goyal 2013b",
        tuple(
            f"linear-thompson(scale={scale}, ridge={ridge})"
            for ridge in (0.3, 1, 3)
            for scale in (0.05, 0.1, 0.2, 0.3, 0.5, 1)
        ),
    ),
    "linear-epsilon-greedy": Entry(
        LinearEpsilonGreedy,
        "the highest mean of the ridge regression, at random with probability epsilon",
        "Langford & Zhang 2008",
        tuple(
            f"linear-epsilon-greedy(epsilon={epsilon}, ridge={ridge})"
            for ridge in (0.3, 1, 3)
            for epsilon in (0, 0.02, 0.05, 0.1)
        ),
    ),
    "ftl": Entry(FollowTheLeader, "the arm with the largest total reward so far", "Shalev-Shwartz 2012, 2.2"),
    "hedge": Entry(
        Hedge,
        "exponential weights on total rewards",
        "Freund & Schapire 1997",
        _grid("hedge", "learning_rate", (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 4, 8)),
    ),
    "fading-leader": Entry(
        FadingLeader,
        "the arm with the largest fading total reward",
        "Cesa-Bianchi & Lugosi 2006, 2.11",
        _grid("fading-leader", "discount", (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)),
    ),
    "fixed-share": Entry(
        FixedShare,
        "exponential weights, mixed with equal ones after every round",
        "Herbster & Warmuth 1998",
        tuple(
            f"fixed-share(learning_rate={rate}, share={share})"
            for rate in (0.2, 0.5, 1, 2, 4)
            for share in (0.01, 0.02, 0.05, 0.1)
        ),
    ),
    "ftrl-l2": Entry(
        FTRL,
        "projection of scaled total rewards on the simplex",
        "Shalev-Shwartz 2012, 2.3",
        _grid("ftrl-l2", "learning_rate", (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)),
    ),
    "ftpl": Entry(
        FTPL,
        "the leader after fresh Gaussian noise",
        "Kalai & Vempala 2005",
        _grid("ftpl", "noise_std", (0, 0.5, 1, 2, 4, 8)),
    ),
}
KNOWING: dict[str, type[KnowsPrior]] = {each.name: each for each in (BayesOptimal, PosteriorGreedy)}
"""Those that are made for problems whose prior is known."""

FITTED: dict[str, type[Fitted]] = {each.name: each for each in (ConstantBest, PriorGreedy)}
"""Those that are made for arms with names, from what these paid on the training part."""

GRIDS: dict[str, tuple[str, ...]] = {name: entry.grid for name, entry in CATALOGUE.items() if entry.grid}


@dataclass(frozen=True, slots=True)
class Description:
    """One row of a table of baselines. feedback: None for both kinds; parameters with their defaults."""

    name: str
    summary: str
    source: str
    feedback: Feedback | None
    parameters: dict[str, object]
    tunable: bool


def describe(name: str) -> Description:
    """What the baseline `name` is. Raises UnknownNameError."""
    if name == Oracle.name:
        return Description(name, "plays the comparator of the regret", "-", None, {"regret": None}, False)
    if (made := KNOWING.get(name) or FITTED.get(name)) is not None:
        return Description(name, made.summary, made.source, None, {}, False)
    if name not in CATALOGUE:
        raise UnknownNameError("baseline", name, baseline_names())
    entry = CATALOGUE[name]
    parameters = {key: field.default for key, field in entry.policy.model_fields.items()}
    return Description(name, entry.summary, entry.source, entry.policy.feedback, parameters, bool(entry.grid))


def baseline_names() -> list[str]:
    """Every name that `make_baseline` knows."""
    return [*CATALOGUE, *KNOWING, *FITTED, Oracle.name]


def baselines_for(rules: Rules, prior: Prior | None = None, *, named: bool = False) -> list[str]:
    """The names of those that can be played under `rules`; the oracle always can.

    prior: what means are drawn from, where that is known. named: whether arms have names.
    """
    return [
        *(name for name, entry in CATALOGUE.items() if entry.policy.suits(rules)),
        *(name for name, policy in KNOWING.items() if policy.refusal(rules, prior) is None),
        *(FITTED if named else ()),
        Oracle.name,
    ]


def parse_spec(spec: str) -> tuple[str, dict[str, float | str | None]]:
    """The name and the parameters of a spec such as `ucb` or `ucb(coefficient=0.4)`.

    Values are numbers, None or bare words. Raises ConfigError.
    """
    match = re.fullmatch(r"\s*([\w:-]+)\s*(?:\(([^()]*)\))?\s*", spec)
    if match is None:
        raise ConfigError(
            f"Cannot read the baseline '{spec}'; expected a name, or name(parameter=value, ...) such as "
            "'ucb(coefficient=0.4)'."
        )
    values: dict[str, float | str | None] = {}
    for part in filter(None, map(str.strip, (match[2] or "").split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value) or key in values:
            raise ConfigError(f"Found '{part}' in the baseline '{spec}'; expected each parameter=value once.")
        try:
            values[key] = None if value == "None" else float(value)
        except ValueError:
            values[key] = value
    return match[1], values


def spec_of(name: str, values: Mapping[str, float | str | None]) -> str:
    """The spec that `parse_spec` reads so."""
    written = {key: f"{value:g}" if isinstance(value, float) else value for key, value in values.items()}
    return f"{name}({', '.join(f'{key}={value}' for key, value in written.items())})"


def make_baseline(
    spec: str,
    table: RewardTable | None = None,
    priors: Priors | None = None,
    arms: FittedArms | None = None,
) -> Policy:
    """The policy that `spec` names. table: (B, T, K), for the oracle alone, which only evaluation makes.

    priors: for those that know them (`KNOWING`). arms: for those that are fitted (`FITTED`). Raises
    UnknownNameError for an unknown name or parameter, ConfigError for a wrong value, for a spec
    `tuned:<name>` (see `tune`), for an oracle without a table, for what knows priors without them and for
    what is fitted without a fit.
    """
    name, values = parse_spec(spec)
    if name.startswith(TUNED):
        raise ConfigError(
            f"'{spec}' has no parameters yet; choose them with tune('{name.removeprefix(TUNED)}', problems, "
            "seed) on a training or validation part, and make the spec that it returns."
        )
    parameters = describe(name).parameters
    for key in values:
        if key not in parameters:
            raise UnknownNameError(f"parameter of {name}", key, parameters)
    if name == Oracle.name:
        return _make_oracle(spec, values, table)
    if name in KNOWING:
        if priors is None:
            raise ConfigError(f"'{spec}' plays by what means are drawn from; give make_baseline the priors.")
        return KNOWING[name](priors)
    if name in FITTED:
        if arms is None:
            raise ConfigError(
                f"'{spec}' is fitted on a suite's training part: 'rmft evaluate' plays it where arms have "
                "names."
            )
        return FITTED[name](arms)
    try:
        return CATALOGUE[name].policy.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(
            f"Wrong value for {problem['loc'][0]} in the baseline '{spec}': {problem['msg']}; "
            f"found {problem['input']!r}."
        ) from None


def _make_oracle(spec: str, values: dict[str, float | str | None], table: RewardTable | None) -> Oracle:
    if table is None:
        raise ConfigError("The oracle plays from the hidden reward table; give make_baseline the table.")
    match values.get("regret"):
        case None:
            return Oracle(table)
        case "static" | "pseudo" | "dynamic" as kind:
            return Oracle(table, kind)
        case other:
            raise ConfigError(
                f"Wrong value for regret in the baseline '{spec}': expected static, pseudo or dynamic; "
                f"found {other!r}."
            )
