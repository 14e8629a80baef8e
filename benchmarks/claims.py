"""Write docs/claims.md from the stored results of studies: which claims are shown, refuted or undecided.

    python benchmarks/claims.py                    # write the page
    python benchmarks/claims.py --check            # exit code 1 when it would be another one
    python benchmarks/claims.py --store runs/NAME  # first store a study's results.json in benchmarks/studies/

A claim about two entries is *shown* where the first has lower regret with p < .05 after Holm's correction
over all of the study's pairs, *refuted* where it has higher regret so, and else *undecided*.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from rmft.files import write_atomically
from rmft.results import Interval
from rmft.study_results import EvaluationResult, PairResult, StudyResults, with_bounds

ROOT = Path(__file__).parents[1]
STORED = ROOT / "benchmarks" / "studies"
PAGE = ROOT / "docs" / "claims.md"
LEVEL = 0.05

HEAD = """# Claims

What the method claims, and whether it holds on models that run here. This page is written by `make claims`
from the results that are stored in `benchmarks/studies`; nothing on it is typed by hand. Regret is on
unseen problems, intervals of 95% are over training seeds and problems ([how](studies.md#what-is-computed)),
differences are paired, p is Holm's over all pairs of a study. A line reads *shown* where the first has
lower regret at p < .05, *refuted* where it has higher regret so, and else *undecided*: that is of the line
alone, and each claim says which lines would show it. Suites `studies/*` are in
`configs/studies`, of 3 arms and 30 rounds unless their names say otherwise. Who the
rivals are: [rivals.md](rivals.md). C3, of hosted models, would need a vendor's; C8 is
[theory.md](theory.md). Language models' studies are run for hours and stored; `make claims` runs the
networks' anew.
"""


@dataclass(frozen=True)
class Claim:
    """One claim, and the study that answers it. words: what it says; note: how to read the tables."""

    name: str
    words: str
    study: str
    note: str = ""


CLAIMS = (
    Claim(
        "C1",
        "Small networks come to decide well in three settings, no worse than rivals with as many rollouts.",
        "c1-numeric",
        "Each pair is ours against a rival: shown where ours has lower regret.",
    ),
    Claim(
        "C2 in words",
        "A language model comes to decide in three settings.",
        "c2-words",
        "SmolLM2-135M, decisions alone, one policy for all three: 2 to 5 arms, 10 to 25 rounds; under "
        "full information each round tells the option of the best total first. b0 is the exponent of "
        "regret; under full information uniform play has one a little below 1 too ([why](measures.md)).",
    ),
    Claim(
        "C4",
        "What was learned carries over: to longer horizons, more arms, other rewards, other settings.",
        "c4-transfer",
        "Three networks, each trained in one setting of 30 rounds and 3 arms, play where they were not "
        "trained. Shown where they do better than uniform play, Thompson sampling, or one another.",
    ),
    Claim(
        "C5",
        "Iterating matters: the same rollouts in one iteration do less.",
        "c5-iterations",
        "The number is that of iterations; rollouts and optimizer steps are equal.",
    ),
    Claim(
        "C5 in words",
        "Iterating matters to a language model too.",
        "c5-words",
        "SmolLM2-135M, decisions alone. The number is that of iterations; rollouts and optimizer steps "
        "are equal.",
    ),
    Claim(
        "C6",
        "Regret as the signal, not reward?",
        "c6-selection",
        "Per problem lowest regret *is* highest expected reward (a test holds the identity), so that line"
        " is not run; the others are the contrasts in which the two differ, and would show the claim "
        "where regret is lower than paid or expected. *Paid* is realised reward, with its noise; with "
        "*own tables* every rollout draws one. SuffFailFreq is high where a policy locks in on its first "
        "arm: of many rollouts the least regret has one that began with the best arm, by luck, and stayed"
        " whatever it saw; the most pay has one that stayed where it was paid.",
    ),
    Claim(
        "C7 in words",
        "The model's own reasoning matters?",
        "c7-words",
        "Qwen2.5-Coder-0.5B, told counts and means, may write up to 16 tokens before each decision, or "
        "decides at once. The claim is that reasoning has lower regret where problems are not those of "
        "training: `words/transfer` has more arms, twice the horizon, and other rewards.",
    ),
)


def verdict(pair: PairResult) -> str:
    """Of "the first has lower regret"."""
    if pair.p_holm is None or pair.difference.mean is None or pair.p_holm >= LEVEL:
        return "undecided"
    return "shown" if pair.difference.mean < 0 else "refuted"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for claim in CLAIMS:
        path = STORED / f"{claim.study}.json"
        parts.append(f"## {claim.name}. {claim.words}\n")
        command = f"rmft study configs/studies/{claim.study}.yaml --jobs 2"
        if not path.exists():
            parts.append(f"Not measured yet: `{command}`.\n")
            continue
        results = StudyResults.model_validate_json(path.read_bytes())
        parts += [f"`{command}`. {claim.note}\n", _count(results)]
        for evaluation in results.evaluations:
            parts += [_entries(evaluation), _pairs(evaluation)]
    return "\n".join(part for part in parts if part)


def _count(results: StudyResults) -> str:
    verdicts = [verdict(pair) for evaluation in results.evaluations for pair in evaluation.pairs]
    counted = (f"{verdicts.count(each)} {each}" for each in ("shown", "refuted", "undecided"))
    return f"Of {len(verdicts)} pairs: {', '.join(counted)}.\n"


def _entries(found: EvaluationResult) -> str:
    seeds = {len(entry.seeds) for entry in found.entries.values()}
    optimum = "" if found.optimum is None else f", the optimum has {found.optimum:.2f}"
    title = (
        f"**{found.suite}**, {found.num_problems:,} problems, "
        f"{'/'.join(map(str, sorted(seeds)))} seeds{optimum}:\n"
    )
    rows: list[tuple[Interval, list[str]]] = []
    for name, entry in found.entries.items():
        fails = "" if entry.suff_fail_freq is None else f"{entry.suff_fail_freq:.2f}"
        exponents = ", ".join(f"{b0:.2f}" for b0 in (entry.start_b0, entry.b0) if b0 is not None)
        regret, before, share = map(with_bounds, (entry.regret, entry.start, entry.share))
        rows.append((entry.regret, [name, regret, before, share, fails, exponents]))
    rows += [
        (regret, [f"*{name}*", with_bounds(regret), "", "", "", ""])
        for name, regret in found.baselines.items()
    ]
    head = ["", "regret", "before", "share of the way", "SuffFailFreq", "b0 before, after"]
    ordered = [row for _, row in sorted(rows, key=lambda each: each[0].mean or 0.0)]
    kept = [place for place, _ in enumerate(head) if place == 0 or any(row[place] for row in ordered)]
    lines = ["| " + " | ".join(row[place] for place in kept) + " |" for row in [head, *ordered]]
    lines.insert(1, "|" + "---|" * len(kept))
    return "\n".join([title, *lines]) + "\n"


def _pairs(found: EvaluationResult) -> str:
    if not found.pairs:
        return ""
    lines = ["| first minus second | difference | p (Holm) | first is lower |", "|---|---|---|---|"]
    for pair in found.pairs:
        p = "" if pair.p_holm is None else "<.001" if pair.p_holm < 0.001 else f"{pair.p_holm:.3f}"
        difference = with_bounds(pair.difference, signed=True)
        lines.append(f"| {pair.first} - {pair.second} | {difference} | {p} | {verdict(pair)} |")
    return "\n".join(lines) + "\n"


def store(folder: Path) -> None:
    """Keep a study's results under its name."""
    results = StudyResults.model_validate_json((folder / "results.json").read_bytes())
    STORED.mkdir(exist_ok=True)
    write_atomically(STORED / f"{results.name}.json", (results.model_dump_json(indent=1) + "\n").encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="only say whether the page is the results'")
    parser.add_argument("--store", type=Path, action="append", default=[], help="a study's folder")
    options = parser.parse_args()
    for folder in options.store:
        store(folder)
    if options.check:
        return int(PAGE.read_text("utf-8") != page())
    write_atomically(PAGE, page().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
