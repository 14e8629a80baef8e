"""docs/claims.md says what the stored results of studies say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rmft.results import Interval
from rmft.study_results import PairResult

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import claims  # noqa: E402


def test_the_page_is_that_of_the_stored_results() -> None:
    assert claims.PAGE.read_text("utf-8") == claims.page(), "run: make claims-page"


def test_a_number_changed_by_hand_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "claims.md"
    changed.write_text(claims.PAGE.read_text("utf-8").replace("regret", "reward", 1), "utf-8")
    monkeypatch.setattr(claims, "PAGE", changed)
    monkeypatch.setattr(sys, "argv", ["claims.py", "--check"])
    assert claims.main() == 1
    monkeypatch.setattr(sys, "argv", ["claims.py"])
    assert claims.main() == 0
    assert changed.read_text("utf-8") == claims.page()


@pytest.mark.parametrize(
    ("difference", "p", "expected"),
    [(-0.5, 0.01, "shown"), (0.5, 0.01, "refuted"), (-0.5, 0.05, "undecided"), (-0.5, None, "undecided")],
)
def test_what_is_shown_is_significant(difference: float, p: float | None, expected: str) -> None:
    interval = Interval(mean=difference, low=None, high=None)
    pair = PairResult(
        first="a", second="b", num_seeds=5, difference=interval, ratio=interval, p_value=p, p_holm=p
    )
    assert claims.verdict(pair) == expected


def test_every_study_of_a_claim_is_there() -> None:
    for claim in claims.CLAIMS:
        assert (ROOT / "configs" / "studies" / f"{claim.study}.yaml").is_file()


def test_it_runs_as_a_script() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "claims.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0
