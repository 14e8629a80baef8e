"""Numbers and findings in words. Plain text throughout: nothing here knows HTML."""

from __future__ import annotations

from collections.abc import Callable

from rmft.report.evaluation_reader import EvaluationResult, PolicyResult, SettingResult
from rmft.report.run_reader import Run
from rmft.report.untrusted import Interval, shown

START, BEST = "start", "best"
BOUNDS = (
    "uniform",
    "oracle",
    "bayes-optimal",
)  # policies that bound a scale; nobody would choose them as a rival
LABELS = {
    START: "before training",
    BEST: "after training",
    "uniform": "uniform play",
    "thompson": "Thompson sampling",
    "ucb": "UCB",
    "ucb1": "UCB1",
}
POLICIES = {
    "arm_encoder": "arm encoder",
    "transformer": "arm encoder",  # its name in runs of version 0.1
    "attention": "attention layer",
    "causal_transformer": "causal Transformer",
    "local": "language model",
    "hosted": "hosted model",
}
TUNED = "tuned:"
PARTS = {"held_out": "unseen", "validation": "validation", "train": "training"}


def about(run: Run, keys: tuple[str, ...]) -> list[str]:
    """What is said of a run before all else: its name, `keys`, and what kind of policy it trains."""
    kind = run.config.get("policy.kind", "")
    policy = [f"policy {POLICIES.get(kind, shown(kind, 60))}"] if kind else []
    return [run.name, *(f"{key} {run.about[key]}" for key in keys if key in run.about), *policy]


def label(policy: str) -> str:
    """What a reader calls a policy; a tuned one without the parameters that were chosen."""
    if policy.startswith(TUNED):
        policy = "tuned " + policy.removeprefix(TUNED).partition("(")[0]
    return LABELS.get(policy, shown(policy, 60))


def digits(value: float | None) -> str:
    """About three digits: 1,234, 16.6, 3.68, 0.0042. No minus before a zero."""
    if value is None:
        return "–"
    value += 0.0
    size = abs(value)
    if size >= 1e6 or 0 < size < 0.01:
        written = f"{value:.2g}"
    else:
        written = f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return written.replace("-", "−")


def plain(text: str) -> str:
    """The minus and the dash of a page as they are typed, and as a terminal's other tables have them."""
    return text.replace("−", "-").replace("–", "-")


def percent(value: float) -> str:
    """A whole number of percent, without a minus before a zero."""
    return f"{round(value)}%".replace("-", "−")


def signed(value: float) -> str:
    return ("+" if value > 0 else "") + digits(value)


def bounds(found: Interval | None) -> str:
    """[low, high], or nothing where no interval is known."""
    if found is None or found.low is None or found.high is None:
        return ""
    return f"[{digits(found.low)}, {digits(found.high)}]"


def with_bounds(found: Interval | None) -> str:
    return f"{digits(found.mean)} {bounds(found)}".strip() if found else "–"


def rival(setting: SettingResult) -> PolicyResult | None:
    """The strongest baseline: that of lowest regret on the validation part, or here where none is known."""
    for name in setting.rivals:
        if name in setting.policies and name not in BOUNDS:
            return setting.policies[name]
    baselines = [row for name, row in setting.policies.items() if name not in (START, BEST, *BOUNDS)]
    return min(baselines, key=lambda row: row.measures["regret"].mean, default=None)


def against(best: PolicyResult, opponent: PolicyResult) -> str:
    """How far `best` is below or above its opponent: "41% below Thompson sampling [38, 44]".

    In percent of the opponent's regret where that is positive, else in units of regret.
    """
    ours, theirs = best.measures["regret"].mean, opponent.measures["regret"].mean
    if theirs > 0:
        ratio = best.relative_regret.get(opponent.name) or Interval(ours / theirs)
        write, change = percent, _map(ratio, lambda share: 100 * (share - 1))
    else:
        write = digits
        change = best.difference.get(opponent.name, {}).get("regret") or Interval(ours - theirs)
    side = "below" if change.mean < 0 else "above"
    change = change if change.mean >= 0 else _map(change, lambda value: -value)
    said = f"{write(change.mean)} {side} {label(opponent.name)}"
    if change.low is None or change.high is None:
        return said
    low, high = sorted((change.low, change.high))
    clear = "" if low > 0 else " (no clear difference)"
    return f"{said} [{write(low)}, {write(high)}]{clear}".replace("%,", ",").replace("%]", "]")


def _map(found: Interval, function: Callable[[float], float]) -> Interval:
    if found.low is None or found.high is None:
        return Interval(function(found.mean))
    return Interval(function(found.mean), function(found.low), function(found.high))


def problems(evaluation: EvaluationResult) -> str:
    """ "2,000 unseen problems", or as much of it as is known."""
    count = "" if evaluation.num_problems is None else f"{evaluation.num_problems:,} "
    return f"{count}{PARTS.get(evaluation.part, shown(evaluation.part, 40))} problems"


def headline(run: Run) -> str:
    """The run's result in one sentence, from its evaluation or, before that, from its validation."""
    if run.evaluation is None:
        return _validation_headline(run)
    overall = run.evaluation.overall
    start, best = overall.policies.get(START), overall.policies.get(BEST)
    if best is None:
        return f"Evaluated on {problems(run.evaluation)}, but the trained policy is not among the policies"
    regret = digits(best.measures["regret"].mean)
    change = f"{digits(start.measures['regret'].mean)} → {regret}" if start else regret
    opponent = _in_headline(overall)
    strongest = ", the best baseline on validation" if opponent and overall.rivals else ""
    clause = f"; {against(best, opponent)}{strongest}" if opponent else ""
    return f"Regret on {problems(run.evaluation)}: {change}{clause}"


def _in_headline(setting: SettingResult) -> PolicyResult | None:
    """The strongest baseline where it was chosen on validation, else the one that everybody knows."""
    return rival(setting) if setting.rivals else setting.policies.get("thompson") or rival(setting)


def _validation_headline(run: Run) -> str:
    measured = [row for row in run.iterations if row.regret]
    kept = run.kept if run.kept and run.kept.regret else measured[-1] if measured else None
    if kept is None or kept.regret is None:
        return "No evaluation yet"
    first = measured[0]
    change = digits(kept.regret.mean)
    if first.regret and first.index != kept.index:
        change = f"{digits(first.regret.mean)} → {change}"
    where = f"at iteration {kept.index}; not evaluated on unseen problems yet"
    return f"Regret on validation problems: {change} {where}"


def second_line(run: Run) -> str:
    """What the headline hides: the best baseline, and how often a policy locks in without the best arm."""
    if run.evaluation is None:
        return ""
    policies = run.evaluation.overall.policies
    best, opponent = policies.get(BEST), rival(run.evaluation.overall)
    said = f"{against(best, opponent)}, the best baseline here. " if best and opponent else ""
    if opponent and opponent is _in_headline(run.evaluation.overall):  # which says it
        said = ""
    asked = [(START, "before training"), (BEST, "after")]
    asked += [(opponent.name, f"for {label(opponent.name)}")] if opponent else []
    rates = [
        f"{percent(100 * rate.mean)} {words}"
        for name, words in asked
        if name in policies and (rate := policies[name].measures.get("suff_fail_freq"))
    ]
    if rates:
        said += f"Rollouts that never play the best arm in the second half: {', '.join(rates)}."
    return said.strip()


def to_optimum(setting: SettingResult) -> str:
    """How far training came from its start to optimal play, in a sentence; nothing where it is not known."""
    best, optimum = setting.policies.get(BEST), setting.optimum
    if best is None or best.share_to_optimum is None or optimum is None:
        return ""
    share = _map(best.share_to_optimum, lambda value: 100 * value)
    ends = ""
    if share.low is not None and share.high is not None:
        ends = f" [{percent(share.low)}, {percent(share.high)}]"
    way = f"{percent(share.mean)}{ends} of the way from the start to the optimum"
    return f"It has gone {way}, {digits(optimum)}."


def status(run: Run) -> str:
    """How far the run is, in one sentence without its full stop."""
    kept = f", iteration {run.best_iteration} kept" if run.best_iteration is not None else ""
    last = f" after {run.iterations[-1].index} iterations{kept}" if run.iterations else ""
    return f"Training {run.status}{last}" if run.status else f"No end of training is recorded{last}"


def findings(run: Run) -> list[str]:
    """What else the numbers say: the optimum, credit, locking in, luck of the first arm, failures, growth."""
    said = [way] if run.evaluation and (way := to_optimum(run.evaluation.overall)) else []
    said += _above_and_below(run)
    policies = run.evaluation.overall.policies if run.evaluation else {}
    best = policies.get(BEST)
    if best and (locked := best.measures.get("first_arm_only")):
        others = [
            f"{label(name)}: {percent(100 * found.mean)}"
            for name in (START, "thompson")
            if name in policies and (found := policies[name].measures.get("first_arm_only"))
        ]
        compared = f" ({'; '.join(others)})" if others else ""
        said.append(f"It locks onto its first arm in {percent(100 * locked.mean)} of problems{compared}.")
    if best and best.b0:
        later = f", from round T/4 on with {with_bounds(best.b0_late)}" if best.b0_late else ""
        said.append(f"Its regret grows with exponent {with_bounds(best.b0)}{later}; linearly is 1.")
    lucky = [
        (row.index, row.first_best, row.above_first_best)
        for row in run.iterations
        if row.first_best is not None and row.above_first_best is not None
    ]
    if lucky:
        index, everyone, above = lucky[0]
        said.append(
            f"In iteration {index} {percent(100 * above)} of what was above average starts with the best "
            f"arm, of all rollouts {percent(100 * everyone)}: the difference is the luck of the first arm."
        )
    said += _of_reasoning(run)
    broken = [row for row in run.iterations if row.failed]
    if broken:
        worst = max(broken, key=lambda row: row.failed or 0.0)
        said.append(
            f"Rollouts failed in {len(broken)} iterations, at most {percent(100 * (worst.failed or 0.0))} of "
            f"them in iteration {worst.index}."
        )
    return said


def _of_reasoning(run: Run) -> list[str]:
    """Whether it does what it says, and how much reasoning was cut, in the first and the last iteration."""
    known = [row for row in run.iterations if row.cut is not None]
    ends = known[:1] + known[1:][-1:]
    told = [
        f"in iteration {row.index} in {percent(100 * row.says)} of rounds, and decides for that one in "
        f"{percent(100 * row.says_does)} of these"
        for row in ends
        if row.says is not None and row.says_does is not None
    ]
    said = [f"Its reasoning names exactly one option last {', '.join(told)}."] if told else []
    cut = [f"in iteration {row.index} {percent(100 * (row.cut or 0.0))}" for row in ends]
    return said + ([f"Rounds cut by the budget: {', '.join(cut)}."] if any(row.cut for row in known) else [])


def _above_and_below(run: Run) -> list[str]:
    """How far apart rollouts above and below average are, in the first iteration and in the last."""
    measured = [row for row in run.iterations if None not in (row.above_regret, row.below_regret)]
    told = [
        f"in iteration {row.index} {digits(row.above_regret)} and {digits(row.below_regret)}"
        for row in (measured[:1] + measured[1:][-1:])
    ]
    gap = "The gap is what there is to learn."
    return (
        [f"Regret of the rollouts above average and of those below: {', '.join(told)}. {gap}"] if told else []
    )
