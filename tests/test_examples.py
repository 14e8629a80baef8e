"""The examples work, and the one with the loop stays short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rmft.config import parse_config

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def _examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.mark.usefixtures("_examples_on_path")
def test_the_loop_in_python_trains(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from train_in_python import train

    from rmft.policies.numeric import load_network

    config = parse_config({
        "suite": "smoke",
        "iterations": 2,
        "num_threads": 1,
        "policy": {"width": 8, "num_heads": 1},
        "rollout": {"num_problems": 4, "num_rollouts": 4},
        "selection": {"num_selected": 2},
    })  # fmt: skip
    regrets = train(config, tmp_path / "policies")

    assert len(regrets) == 2
    assert all(0 < regret < 10 for regret in regrets)  # ten rounds, each of at most 1
    assert sorted(folder.name for folder in (tmp_path / "policies").iterdir()) == ["0", "1", "2"]
    first, last = (load_network(tmp_path / "policies" / name)[0].state_dict() for name in "02")
    assert any(not np.array_equal(first[name], last[name]) for name in first)
    assert train(config, tmp_path / "again") == regrets  # the seed decides everything


def test_the_loop_fits_in_fifty_lines() -> None:
    assert len((EXAMPLES / "train_in_python.py").read_text().splitlines()) < 50


def test_the_readme_names_every_example() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in readme] == []
