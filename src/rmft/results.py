"""The evaluation table: what `evaluate` returns, its JSON (docs/evaluation-json.md) and its table.

A file read back is checked, since it may come from anywhere: every number is finite, every name is
printable, every curve is as long as its horizon. `Evaluation.read_leniently` has the same definitions and
keeps what is right of a file: an entry that is wrong is left out, another wrong value is None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from rich.table import Table
from rich.text import Text

from rmft.errors import ConfigError, UnknownNameError
from rmft.lenient import Count, Each, Name, Number, OrNone, Part, Required, is_lenient
from rmft.regret import RegretKind
from rmft.types import Feedback

FORMAT: Literal["rmft-evaluation/1"] = "rmft-evaluation/1"


SHOWN = ("regret", "suff_fail_freq", "k_min_frac")
"""The measures that every evaluation has, and its table shows."""
FURTHER = {
    "greedy_frac": "GreedyFrac", "early_switching": "switching", "opponent_regret": "opponent's regret",
    "cce_distance": "CCE distance",
}  # fmt: skip
"""Further ones in the table, by their columns; files of version 0.1 lack some of them."""
MANY_SEEDS = 10
"""Training seeds from which on Student's t is about as narrow as the normal distribution."""


class Interval(Part):
    """A mean and its confidence interval; None where undefined."""

    mean: Number
    low: Number
    high: Number

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any, info: ValidationInfo) -> Any:
        """In a lenient reading a mean alone is an interval too."""
        return {"mean": value} if is_lenient(info) and not isinstance(value, dict) else value


class ExponentTest(Part):
    """The one-sided test of b0 >= 1: its p-value, and the two-sided interval of b0."""

    p_value: Number
    low: Number
    high: Number


class TrendResult(Part):
    """The trend check on the mean regret curve."""

    s: Annotated[Count | None, Required]
    p_trend: Annotated[float | None, Required]


class RegressionResult(Part):
    """The regression check on the mean regret curve, and the one-sided test of b0 >= 1.

    b0_late: the exponent from round T/4 on.
    """

    b0: Number
    p_reg: Number
    floored: Annotated[Count | None, Required]
    b0_below_1: Annotated[ExponentTest | None, Required]
    b0_late: Annotated[Interval | None, OrNone] = None


class Curve(Part):
    """The mean regret curve with its pointwise confidence band, T numbers each."""

    mean: list[float]
    low: Annotated[list[float | None] | None, Required]
    high: Annotated[list[float | None] | None, Required]


class Histogram(Part):
    """Trajectories by their number of best-arm pulls: n counts, n + 1 edges."""

    counts: list[Count]
    edges: list[float]

    @model_validator(mode="after")
    def _lengths(self) -> Histogram:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} counts need one edge more, found {len(self.edges)}")
        return self


class SeedResult(Part):
    """The policy of one training seed: its own mean regret, with an interval over problems."""

    seed: Count
    regret: Interval


class Comparison(Part):
    """One policy's measures, and how they differ from each rival's on the same tables.

    seeds: where the policy is that of several training seeds, each seed's own result; intervals then are over
    seeds and problems. share_to_optimum: of the way from the start's regret to that of optimal play, how much
    the policy has gone, where both are known: 0 at the start, 1 at the optimum, below 0 when it got worse.
    """

    measures: Annotated[dict[Name, Interval], Each]
    paired_difference: Annotated[dict[Name, Annotated[dict[Name, Interval], Each]], Each]
    relative_regret: Annotated[dict[Name, Interval], Each]
    seeds: Annotated[list[SeedResult] | None, OrNone] = None
    share_to_optimum: Annotated[Interval | None, OrNone] = None

    @model_serializer(mode="wrap")
    def _where_there_are(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = serialize(self)
        optional = ("seeds", "share_to_optimum")
        return {key: value for key, value in found.items() if key not in optional or value is not None}

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Comparison:
        if is_lenient(info):
            if "regret" not in self.measures or self.measures["regret"].mean is None:
                raise ValueError("there is no regret")
            return self
        for of, measures in {"measures": self.measures, **self.paired_difference}.items():
            missing = [name for name in SHOWN if name not in measures]
            if missing:
                raise ValueError(f"'{of}' lacks {', '.join(missing)}")
        return self


ComparisonOfKind = TypeVar("ComparisonOfKind", bound=Comparison)


class PolicyResult(Comparison):
    """One policy in one setting. problem_regrets: the mean over a problem's rollouts, of each problem."""

    trend_check: Annotated[TrendResult | None, Required]
    regression_check: Annotated[RegressionResult | None, Required]
    regret_curve: Annotated[Curve | None, Required]
    best_arm_pulls: Annotated[Histogram | None, Required]
    problem_regrets: Annotated[list[float] | None, OrNone] = None


class SettingResult(Part):
    """One setting: its rules, and every policy's result. optimum: the expected regret of optimal play.

    uniform_check: the regression check of uniform play on the same problems, from its expected regret.
    """

    feedback: Annotated[Feedback | None, Required]
    horizon: Annotated[Annotated[int, Field(ge=1)] | None, Required]
    num_arms: Annotated[Annotated[int, Field(ge=2)] | None, Required]
    regret: Annotated[RegretKind | None, Required]
    num_problems: Annotated[Annotated[int, Field(ge=1)] | None, Required]
    optimum: Number = None
    uniform_check: Annotated[RegressionResult | None, OrNone] = None
    policies: Annotated[dict[Name, PolicyResult], Each]

    @model_validator(mode="after")
    def _lengths(self, info: ValidationInfo) -> SettingResult:
        if is_lenient(info):
            if not self.policies:
                raise ValueError("there is no policy with a regret")
            return self
        for name, policy in self.policies.items():
            curve = policy.regret_curve
            parts = () if curve is None else (curve.mean, curve.low, curve.high)
            lengths = {len(part) for part in parts if part is not None}
            if lengths != {self.horizon}:
                raise ValueError(f"regret_curve of '{name}' has {lengths} points, the horizon {self.horizon}")
            if policy.problem_regrets is not None and len(policy.problem_regrets) != self.num_problems:
                found = len(policy.problem_regrets)
                raise ValueError(f"problem_regrets of '{name}' are {found}, the problems {self.num_problems}")
        return self


class Evaluation(Part):
    """Policies x settings, each with measures, intervals and paired differences.

    fingerprint: of the problems; equal where and only where they are the same. optimum: the expected regret
    of optimal play, over all problems, where it is known in every setting. rivals: the baselines among the
    policies but for those that bound what can be had, by regret on the validation part, the lowest first.
    """

    format: Literal["rmft-evaluation/1"] = FORMAT
    suite: Annotated[Name | None, Required]
    part: Annotated[Name | None, Required]
    num_problems: Annotated[Annotated[int, Field(ge=1)] | None, Required]
    num_rollouts: Annotated[Annotated[int, Field(ge=1)] | None, Required]
    seed: Annotated[Count | None, Required]
    confidence: Annotated[float | None, Required]
    versions: Annotated[dict[Name, Name], Each]
    fingerprint: Annotated[Name | None, OrNone] = None
    optimum: Number = None
    rivals: Annotated[list[Name] | None, OrNone] = None
    settings: Annotated[dict[Name, SettingResult], Field(min_length=1), Each]
    overall: Annotated[dict[Name, Comparison], Each]

    @model_validator(mode="after")
    def _same_policies(self, info: ValidationInfo) -> Evaluation:
        if is_lenient(info):
            return self
        names = self.overall.keys()
        for setting, result in self.settings.items():
            if result.policies.keys() != names:
                raise ValueError(f"setting '{setting}' and overall hold different policies")
        everywhere: list[Mapping[str, Comparison]] = [
            self.overall,
            *(s.policies for s in self.settings.values()),
        ]
        for compared in everywhere:
            for name, comparison in compared.items():
                if comparison.paired_difference.keys() != names - {name}:
                    raise ValueError(f"'{name}' is not compared with every other policy, or with one unknown")
        return self

    @property
    def policies(self) -> list[str]:
        return list(self.overall)

    def _in_order(self, policies: Mapping[str, ComparisonOfKind]) -> list[tuple[str, ComparisonOfKind]]:
        """Policies, of the baselines the strongest on validation first."""
        places = {name: place for place, name in enumerate(self.rivals or (), start=1)}
        return sorted(policies.items(), key=lambda each: places.get(each[0], 0))

    def to_json(self) -> str:
        """Stable JSON, format rmft-evaluation/1: no NaN, null where undefined, lists of numbers in a line."""
        indented = self.model_dump_json(indent=1)
        return re.sub(r"\[\n[^][{}\"]*\]", lambda found: json.dumps(json.loads(found[0])), indented) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Evaluation:
        """Read what `to_json` wrote. Raises ConfigError, naming the first thing that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(key) for key in first["loc"]) or "the whole"
            found = f", found {first['input']!r:.60}" if isinstance(first["input"], str | int | float) else ""
            raise ConfigError(
                f"This is no evaluation of the format {FORMAT}: at {where!r:.200}: "
                f"{first['msg']:.200}{found}. "
                "Write it again with `rmft evaluate`."
            ) from None

    @classmethod
    def read_leniently(cls, value: object) -> Evaluation | None:
        """What is right of a file's content, which nobody vouches for; None where it holds no object."""
        if not isinstance(value, dict):
            return None
        return cls.model_validate({**value, "format": FORMAT}, context={"lenient": True})

    def rows(self, against: Sequence[str] = ()) -> list[dict[str, str]]:
        """The table as plain text, one row per setting and policy, then overall if settings are several.

        Of the baselines the strongest on validation comes first, where that is known. Differences are this
        policy's regret minus the rival's, below 0 when it is better.
        Raises UnknownNameError when a rival in `against` was not evaluated.
        """
        for rival in against:
            if rival not in self.overall:
                raise UnknownNameError("rival", rival, self.policies)
        rows: list[dict[str, str]] = []
        everywhere: list[Comparison] = []
        for name, setting in self.settings.items():
            for policy, played in self._in_order(setting.policies):
                rows.append(_row(name, policy, played, against, played.regression_check))
                everywhere.append(played)
        if len(self.settings) > 1:
            for policy, overall in self._in_order(self.overall):
                rows.append(_row("overall", policy, overall, against, None))
                everywhere.append(overall)
        if any(each.share_to_optimum for each in everywhere):
            for row, result in zip(rows, everywhere, strict=True):
                row["share to optimum"] = show(result.share_to_optimum) if result.share_to_optimum else "-"
        if any(each.seeds for each in self.overall.values()):
            for row, result in zip(rows, everywhere, strict=True):
                own = [f"{each.seed}: {_number(each.regret.mean)}" for each in result.seeds or ()]
                row["regret by seed"] = ", ".join(own) or "-"
        return rows

    def table(self, against: Sequence[str] = ()) -> Table:
        """`rows` as a rich table."""
        rows = self.rows(against)
        several = len(self.settings) > 1
        seeds = next((len(each.seeds) for each in self.overall.values() if each.seeds), 0)
        columns = [column for column in rows[0] if several or column != "setting"]
        title = (
            f"{self.suite} {self.part}: {self.num_problems or 0:,} problems x {self.num_rollouts} rollouts"
        )
        said = [*self._of_optimum(), *_of_seeds(seeds), *self._of_exponents()]
        caption = Text(" ".join(said)) if said else None
        table = Table(title=Text(f"{title}, {self.confidence or 0:.0%} intervals"), caption=caption)
        for column in columns:
            table.add_column(Text(column), justify="left" if column in ("setting", "policy") else "right")
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            ends = following is None or following["setting"] != row["setting"]
            table.add_row(*(Text(row[column]) for column in columns), end_section=ends)
        return table

    def _of_optimum(self) -> list[str]:
        """What optimal play comes to, in words, where it is known."""
        known = {name: each.optimum for name, each in self.settings.items() if each.optimum is not None}
        if len(self.settings) > 1 and self.optimum is not None:
            known["overall"] = self.optimum
        if not known:
            return []
        each = ", ".join(f"{name} {_number(value)}" for name, value in known.items())
        told = (
            f"Expected regret of optimal play: {each if len(self.settings) > 1 else each.rsplit(' ', 1)[1]}."
        )
        if any(policy.share_to_optimum for policy in self.overall.values()):
            told += " Share to optimum: of the way there from the start's regret."
        return [told]

    def _of_exponents(self) -> list[str]:
        """What the exponents show, and where they show less."""
        told = "b0 is the exponent of regret, over all rounds and from round T/4 on."
        passing = [name for name, each in self.settings.items() if _passes(each.uniform_check)]
        if not passing:
            return [told]
        where = f" in {', '.join(passing)}" if len(self.settings) > 1 else ""
        return [
            told,
            f"Uniform play has b0 < 1 too{where} (p < .05): there it does not tell that one learns.",
        ]


def _passes(check: RegressionResult | None) -> bool:
    """Whether the test rejects b0 >= 1."""
    test = check.b0_below_1 if check else None
    return test is not None and test.p_value is not None and test.p_value < 0.05


def _row(
    setting: str, policy: str, result: Comparison, against: Sequence[str], check: RegressionResult | None
) -> dict[str, str]:
    differences = {
        f"minus {rival}": show(result.paired_difference[rival]["regret"], "+") if rival != policy else "-"
        for rival in against
    }
    return {
        "setting": setting,
        "policy": policy,
        "regret": show(result.measures["regret"]),
        **differences,
        "SuffFailFreq": _number(result.measures["suff_fail_freq"].mean),
        "K·MinFrac": _number(result.measures["k_min_frac"].mean),
        **{
            column: _number(result.measures[key].mean)
            for key, column in FURTHER.items()
            if key in result.measures
        },
        "b0": _number(check.b0 if check else None),
        "from T/4": _number(check.b0_late.mean if check and check.b0_late else None),
    }


def _of_seeds(count: int) -> list[str]:
    """What a reader of results over so many training seeds has to know."""
    if not count:
        return []
    if count == 1:
        return ["One training seed: intervals are over problems and say nothing of other seeds."]
    said = f"Means over {count} training seeds, intervals over seeds and problems"
    few = (
        "" if count >= MANY_SEEDS else "; so few seeds tell little of how seeds differ, hence wide intervals"
    )
    return [f"{said}{few}."]


def show(interval: Interval, sign: Literal["", "+"] = "") -> str:
    """An interval in words: `3.62 [3.41, 3.85]`, or `-` where undefined."""
    if interval.mean is None or interval.low is None or interval.high is None:
        return _number(interval.mean, sign)
    return f"{interval.mean:{sign}z.2f} [{interval.low:{sign}z.2f}, {interval.high:{sign}z.2f}]"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}z.2f}"
