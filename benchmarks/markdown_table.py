"""Turn an evaluation into the Markdown tables of the README.

    python benchmarks/markdown_table.py runs/mab/evaluation.json [POLICY ...]

One row per setting and policy: regret, its difference from and ratio to the first policy's, SuffFailFreq,
each with its 95% interval. Without names, every policy evaluated.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rmft.evaluation.statistics import Interval
from rmft.results import Comparison, Evaluation, show

NOTHING = Interval(mean=None, low=None, high=None)


def row(setting: str, name: str, first: str, own: Comparison, of_first: Comparison) -> str:
    """One line; differences are the first policy's minus this one's, below 0 when the first is better."""
    versus = of_first.paired_difference.get(name, {}).get("regret", NOTHING)
    ratio = of_first.relative_regret.get(name, NOTHING)
    cells = [
        setting,
        name,
        show(own.measures["regret"]),
        show(versus, "+") if name != first else "",
        show(ratio) if name != first else "",
        show(own.measures["suff_fail_freq"]),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("policies", nargs="*")
    options = parser.parse_args()
    evaluation = Evaluation.from_json(options.evaluation.read_bytes())
    names = options.policies or evaluation.policies
    first = evaluation.policies[0]
    print(f"| setting | policy | regret | {first} minus it | {first} / it | SuffFailFreq |")
    print("|---|---|---|---|---|---|")
    parts: dict[str, dict[str, Comparison]] = {
        name: dict(setting.policies) for name, setting in evaluation.settings.items()
    }
    if len(parts) > 1:
        parts["overall"] = evaluation.overall
    for setting, policies in parts.items():
        for name in names:
            print(row(setting, name, first, policies[name], policies[first]))


if __name__ == "__main__":
    main()
