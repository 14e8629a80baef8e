"""An evaluation as charts and tables ask for it, from what `rmft.results` reads leniently of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rmft import results
from rmft.report.untrusted import Interval

POOLED = "all settings"


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """How one policy did in one setting. Curves are (T,); pulls are counts (n,) between edges (n + 1,)."""

    name: str
    measures: dict[str, Interval]
    difference: dict[str, dict[str, Interval]]  # by rival, then measure: this policy minus the rival
    relative_regret: dict[str, Interval]  # by rival: this policy's regret / the rival's
    b0: Interval | None  # the exponent with which regret grows
    p_below_1: float | None  # of the test that b0 is 1 or more, which uniform play may pass too
    curve: tuple[list[float], list[float], list[float]] | None  # mean, low, high
    pulls: tuple[list[float], list[float]] | None  # counts, edges
    problem_regrets: list[float] | None = None  # one per problem, where they are kept
    share_to_optimum: Interval | None = None  # of the way from the start's regret to that of optimal play
    b0_late: Interval | None = None  # the exponent from round T/4 on


@dataclass(frozen=True, slots=True)
class SettingResult:
    """Every policy in one setting; `facts` are its horizon, number of arms and so on, as words.

    optimum: the expected regret of optimal play, where it is known. uniform_p: of the test that b0 is 1 or
    more, of uniform play.
    """

    name: str
    facts: dict[str, str]
    policies: dict[str, PolicyResult]
    optimum: float | None = None
    uniform_p: float | None = None
    rivals: tuple[str, ...] = ()  # its baselines, the strongest on the validation part first; () unless known


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """An evaluation.json. `overall` pools all settings; of a single setting it is that setting.

    fingerprint: of the problems, the same where they are; an older or damaged file has none.
    """

    suite: str
    part: str
    num_problems: int | None
    num_rollouts: int | None
    seed: int | None
    confidence: float
    settings: list[SettingResult]
    overall: SettingResult
    fingerprint: str | None = None

    def problem_regrets(self, policy: str) -> list[float] | None:
        """The policy's regret in every problem, setting after setting; None where one has none."""
        found = self._regrets(policy)
        if not found or not all(found):
            return None
        return [regret for regrets in found for regret in regrets]

    def problems_by_setting(self, policy: str) -> list[int]:
        """How many problems of each setting `problem_regrets` has."""
        return [len(regrets) for regrets in self._regrets(policy)]

    def _regrets(self, policy: str) -> list[list[float]]:
        known = [setting.policies.get(policy) for setting in self.settings]
        return [(result.problem_regrets or []) if result else [] for result in known]


def read_evaluation(value: object, notes: list[str], name: str) -> EvaluationResult | None:
    """The evaluation in `value`, the content of the file `name`, or None when it holds none.

    `notes` gains what is wrong with it.
    """
    read = results.Evaluation.read_leniently(value)
    if read is None or not isinstance(value, dict):
        return None
    if value.get("format") != results.FORMAT:
        notes.append(f"{name} has format {value.get('format')!r}; this version reads '{results.FORMAT}'.")
    rivals = tuple(read.rivals or ())
    settings = [
        SettingResult(
            key, _facts(setting), _policies(setting.policies), setting.optimum, _uniform_p(setting), rivals
        )
        for key, setting in read.settings.items()
    ]
    pooled = SettingResult(POOLED, {}, _policies(read.overall), read.optimum, None, rivals)
    if not pooled.policies and not settings:
        notes.append(f"{name} is damaged: no policy with a regret was found in it.")
        return None
    if not pooled.policies and len(settings) > 1:
        notes.append(f"{name} has no overall result; the first setting, {settings[0].name}, leads here.")
    stored = value.get("settings")
    return EvaluationResult(
        suite=read.suite or "unknown suite",
        part=read.part or "unknown part",
        num_problems=read.num_problems,
        num_rollouts=read.num_rollouts,
        seed=read.seed,
        confidence=read.confidence if read.confidence is not None and 0 < read.confidence < 1 else 0.95,
        settings=settings,
        overall=pooled if pooled.policies and len(settings) != 1 else settings[0],
        fingerprint=read.fingerprint if isinstance(stored, dict) and len(stored) == len(settings) else None,
    )


def _facts(setting: results.SettingResult) -> dict[str, str]:
    names = ("feedback", "horizon", "num_arms", "regret", "num_problems")
    return {key: str(fact) for key in names if (fact := getattr(setting, key)) is not None}


def _uniform_p(setting: results.SettingResult) -> float | None:
    test = setting.uniform_check.b0_below_1 if setting.uniform_check else None
    return test.p_value if test else None


def _policies(found: Mapping[str, results.Comparison]) -> dict[str, PolicyResult]:
    return {name: _policy(name, result) for name, result in found.items()}


def _policy(name: str, result: results.Comparison) -> PolicyResult:
    whole = result if isinstance(result, results.PolicyResult) else None
    check = whole.regression_check if whole else None
    test = check.b0_below_1 if check else None
    share, late = result.share_to_optimum, check.b0_late if check else None
    return PolicyResult(
        name,
        measures=_known(result.measures),
        difference={key: _known(item) for key, item in result.paired_difference.items()},
        relative_regret=_known(result.relative_regret),
        b0=None if check is None or check.b0 is None else _bounded(check.b0, test),
        p_below_1=None if test is None else test.p_value,
        curve=_curve(whole.regret_curve) if whole else None,
        pulls=_pulls(whole.best_arm_pulls) if whole else None,
        problem_regrets=(whole.problem_regrets or None) if whole else None,
        share_to_optimum=None if share is None or share.mean is None else _bounded(share.mean, share),
        b0_late=None if late is None or late.mean is None else _bounded(late.mean, late),
    )


def _known(found: Mapping[str, results.Interval]) -> dict[str, Interval]:
    """Those that have a mean."""
    return {key: _bounded(each.mean, each) for key, each in found.items() if each.mean is not None}


def _bounded(mean: float, ends: results.Interval | results.ExponentTest | None) -> Interval:
    """Half an interval counts as none."""
    if ends is None or ends.low is None or ends.high is None:
        return Interval(mean)
    return Interval(mean, ends.low, ends.high)


def _curve(found: results.Curve | None) -> tuple[list[float], list[float], list[float]] | None:
    """mean, low, high; where an end does not fit the mean, the mean stands for it."""
    if found is None or not found.mean:
        return None
    ends = ([value for value in end or () if value is not None] for end in (found.low, found.high))
    low, high = (end if len(end) == len(found.mean) else found.mean for end in ends)
    return found.mean, low, high


def _pulls(found: results.Histogram | None) -> tuple[list[float], list[float]] | None:
    return (list(map(float, found.counts)), found.edges) if found and sum(found.counts) > 0 else None
