"""A run's evaluations -> how policies compare: the table, and curves with every policy to be switched."""

from __future__ import annotations

from rmft.report import charts
from rmft.report.blocks import Block, Cell, Heading, Piece, Policies, Style, Table, Text
from rmft.report.evaluation_reader import EvaluationResult, SettingResult
from rmft.report.run_reader import Run
from rmft.report.words import BEST, digits, label, problems, rival

MEASURES = {
    "suff_fail_freq": "SuffFailFreq",
    "k_min_frac": "K·MinFrac",
    "greedy_frac": "GreedyFrac",
    "early_switching": "early switching",
    "late_regret": "late regret",
    "rounds_to_switch": "rounds to switch",
    "win_stay": "win-stay",
    "lose_shift": "lose-shift",
    "best_arm_freq": "BestArmFreq",
    "first_arm_only": "first arm only",
    "failed": "failed",
    "opponent_regret": "opponent's regret",
    "cce_distance": "CCE distance",
}


def curves(run: Run, styles: dict[str, Style]) -> Piece:
    """The Curves of a run: every evaluation in it, setting by setting."""
    blocks: list[Block] = [Heading("Before and after", 1)]
    names: dict[str, None] = {}
    shown: dict[str, None] = {}
    for evaluation in run.evaluations.values():
        for setting in (evaluation.overall, *evaluation.settings):
            names |= dict.fromkeys(row.name for row in charts.ordered(setting))
            shown |= dict.fromkeys(charts.shown_at_first(setting))
    if names:
        drawn = [styles[name] for name in names]
        blocks.append(Policies(list(names), [label(name) for name in names], drawn, list(shown)))
    else:
        blocks.append(Text("There is no evaluation to show. To make one: rmft evaluate RUN"))
    for evaluation in run.evaluations.values():
        blocks += _evaluation(evaluation, styles)
    return Piece(f"{run.name}: before and after", blocks)


def _evaluation(evaluation: EvaluationResult, styles: dict[str, Style]) -> list[Block]:
    rollouts = f", rollouts of each: {evaluation.num_rollouts}" if evaluation.num_rollouts else ""
    caption = (
        f"{problems(evaluation).capitalize()} of {evaluation.suite[:200]}{rollouts}; in brackets "
        f"{100 * evaluation.confidence:g}% confidence intervals. All policies meet the same reward tables, "
        "so that differences (after training minus the row's policy) are paired. b0 is the exponent with "
        "which regret grows, p of the test that it is 1 or more: a small one rejects exactly linear regret "
        "from round 1 and nothing else. The exponent from round T/4 on leaves the first rounds out."
    )
    blocks: list[Block] = [Heading(f"{evaluation.suite[:200]}: {problems(evaluation)}")]
    if len(evaluation.settings) > 1:
        blocks.append(policy_table("Policies in all settings", evaluation.overall, styles, caption))
    for setting in evaluation.settings or [evaluation.overall]:
        facts = "; ".join(f"{key.replace('_', ' ')} {value[:80]}" for key, value in setting.facts.items())
        if len(evaluation.settings) > 1:
            blocks.append(Heading(f"Setting: {setting.name[:200]}", 3))
            caption = facts
        if setting.uniform_p is not None:
            caption = f"{caption.rstrip('.')}. Uniform play has p {digits(setting.uniform_p)}."
        blocks.append(policy_table(f"Policies in {setting.name[:200]}", setting, styles, caption))
        drawn = (
            charts.regret_curves(setting, styles, evaluation.confidence),
            charts.exploration(setting, styles),
            charts.frontier(setting, styles),
            charts.best_arm_pulls(setting, styles),
        )
        blocks += [chart for chart in drawn if chart is not None]
    return blocks


def policy_table(title: str, setting: SettingResult, styles: dict[str, Style], caption: str) -> Table:
    """One row per policy: regret, what the trained one gains on it, the other measures, the exponent."""
    rows = charts.ordered(setting)
    measures = {key: name for key, name in MEASURES.items() if any(key in row.measures for row in rows)}
    best, opponent = setting.policies.get(BEST), rival(setting)
    strongest = "best baseline on validation" if setting.rivals else "best baseline"
    slopes = any(row.b0 for row in rows)
    shares = any(row.share_to_optimum for row in rows)
    columns = ["policy", "regret", *(["difference"] if best else [])]
    columns += ["share to optimum"] if shares else []
    columns += measures.values()
    columns += ["b0", "p (b0 ≥ 1)", "b0 from T/4"] if slopes else []
    body: list[list[Cell]] = []
    for row in rows:
        name = f"{label(row.name)} ({strongest})" if row is opponent else label(row.name)
        cells: list[Cell] = [name, row.measures["regret"]]
        cells += [best.difference.get(row.name, {}).get("regret")] if best else []
        cells += [row.share_to_optimum] if shares else []
        cells += [row.measures.get(key) for key in measures]
        body.append([*cells, *([row.b0, row.p_below_1, row.b0_late] if slopes else [])])
    if setting.optimum is not None:
        caption = (
            f"{caption.rstrip('.')}. Expected regret of optimal play: {digits(setting.optimum)}; share to "
            "optimum is of the way there from before training."
        )
    return Table(
        title,
        columns,
        body,
        caption,
        signed=[2] if best else [],
        keys=[styles[row.name] for row in rows],
        strong=[place for place, row in enumerate(rows) if row.name == BEST],
    )
