"""What an evaluation.json says, read leniently: a policy without a regret is left out."""

from __future__ import annotations

from dataclasses import dataclass

from rmft.report.untrusted import Interval, get, intervals, mapping, number, numbers, text, whole

EVALUATION_FORMAT = "rmft-evaluation/1"
POOLED = "all settings"


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """How one policy did in one setting. Curves are (T,); pulls are counts (n,) between edges (n + 1,)."""

    name: str
    measures: dict[str, Interval]
    difference: dict[str, dict[str, Interval]]  # by opponent, then measure: this policy minus the opponent
    relative_regret: dict[str, Interval]  # by opponent: this policy's regret / the opponent's
    b0: Interval | None  # the exponent with which regret grows
    p_below_1: float | None  # of the test that b0 is 1 or more
    curve: tuple[list[float], list[float], list[float]] | None  # mean, low, high
    pulls: tuple[list[float], list[float]] | None  # counts, edges
    problem_regrets: list[float] | None = None  # one per problem, where they are kept


@dataclass(frozen=True, slots=True)
class SettingResult:
    """Every policy in one setting; `facts` are its horizon, number of arms and so on, as words."""

    name: str
    facts: dict[str, str]
    policies: dict[str, PolicyResult]


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
        found = [
            setting.policies[policy].problem_regrets if policy in setting.policies else None
            for setting in self.settings
        ]
        known = [regrets for regrets in found if regrets]
        return (
            [regret for regrets in known for regret in regrets]
            if known and len(known) == len(found)
            else None
        )


def read_evaluation(value: object, notes: list[str], name: str) -> EvaluationResult | None:
    """The evaluation in `value`, the content of the file `name`, or None when it holds none.

    `notes` gains what is wrong with it.
    """
    if not isinstance(value, dict):
        return None
    if value.get("format") != EVALUATION_FORMAT:
        notes.append(f"{name} has format {value.get('format')!r}; this version reads '{EVALUATION_FORMAT}'.")
    found = [_setting(name, item) for name, item in mapping(value.get("settings")).items()]
    settings = [setting for setting in found if setting.policies]
    pooled = _setting(POOLED, {"policies": value.get("overall")})
    if not pooled.policies and not settings:
        notes.append(f"{name} is damaged: no policy with a regret was found in it.")
        return None
    if not pooled.policies and len(settings) > 1:
        notes.append(f"{name} has no overall result; the first setting, {settings[0].name}, leads here.")
    confidence = number(value.get("confidence"))
    return EvaluationResult(
        suite=text(value.get("suite")) or "unknown suite",
        part=text(value.get("part")) or "unknown part",
        num_problems=whole(value.get("num_problems")),
        num_rollouts=whole(value.get("num_rollouts")),
        seed=whole(value.get("seed")),
        confidence=confidence if confidence is not None and 0 < confidence < 1 else 0.95,
        settings=settings,
        overall=pooled if pooled.policies and len(settings) != 1 else settings[0],
        fingerprint=text(value.get("fingerprint")) if len(settings) == len(found) else None,
    )


def _setting(name: str, value: object) -> SettingResult:
    names = ("feedback", "horizon", "num_arms", "regret", "num_problems")
    results = {key: _policy(key, item) for key, item in mapping(get(value, "policies")).items()}
    return SettingResult(
        name,
        facts={key: str(fact) for key in names if isinstance(fact := get(value, key), str | int)},
        policies={key: result for key, result in results.items() if "regret" in result.measures},
    )


def _policy(name: str, value: object) -> PolicyResult:
    check = get(value, "regression_check")
    slope = number(get(check, "b0"))
    bounds = number(get(check, "b0_below_1", "low")), number(get(check, "b0_below_1", "high"))
    curve = [numbers(get(value, "regret_curve", key)) for key in ("mean", "low", "high")]
    mean, low, high = (
        part if part and curve[0] and len(part) == len(curve[0]) else curve[0] for part in curve
    )
    counts = numbers(get(value, "best_arm_pulls", "counts"))
    edges = numbers(get(value, "best_arm_pulls", "edges"))
    histogram = counts and edges and len(edges) == len(counts) + 1 and min(counts) >= 0 and sum(counts) > 0
    return PolicyResult(
        name,
        measures=intervals(get(value, "measures")),
        difference={key: intervals(item) for key, item in mapping(get(value, "paired_difference")).items()},
        relative_regret=intervals(get(value, "relative_regret")),
        b0=None if slope is None else Interval(slope, *(bounds if None not in bounds else ())),
        p_below_1=number(get(check, "b0_below_1", "p_value")),
        curve=(mean, low, high) if mean and low and high else None,
        pulls=(counts, edges) if histogram and counts and edges else None,
        problem_regrets=numbers(get(value, "problem_regrets")),
    )
