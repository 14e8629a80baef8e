"""The public face: what `import rmft` offers stays, with its parameters; it is typed, and quick to import."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rmft
from run_files import evaluation_in

PARAMETERS = {
    "Agent": "policy folder",
    "Agent.episode": "options horizon feedback reward_range contexts context seed",
    "Agent.episodes": "size options horizon feedback reward_range contexts context seed",
    "Agent.identity": "",
    "Agent.load": "target",
    "Agent.resume": "saved",
    "Agent.resume_episodes": "saved",
    "Choice": "arm name probabilities reasoning",
    "Decisions": "arms probabilities turns failed",
    "Env": "suite part setting wording attempts",
    "Env.game": "",
    "Env.over": "",
    "Env.regret": "",
    "Env.reset": "seed part",
    "Env.step": "answer",
    "Environment": "",
    "Episode.choice": "",
    "Episode.close": "",
    "Episode.decide": "context",
    "Episode.done": "",
    "Episode.num_rounds": "",
    "Episode.observe": "reward rewards",
    "Episode.to_json": "",
    "Episodes.choices": "",
    "Episodes.close": "",
    "Episodes.decide": "context",
    "Episodes.done": "",
    "Episodes.num_rounds": "",
    "Episodes.observe": "rewards",
    "Episodes.to_json": "",
    "Evaluation": "",
    "Histories": "rules size words",
    "Observation": "numbers features texts",
    "Policy": "",
    "PolicyRef": "kind path",
    "RewardTable": "rewards expected_rewards observations",
    "RmftError": "",
    "Round": "index arms played rewards observations features",
    "RowHistory": "rules arms rewards played observations features texts",
    "Rules": "feedback horizon num_arms reward_range shown",
    "Shown": "numbers features text_length",
    "Suite": "",
    "Suite.context": "",
    "Trainer": "",
    "TrainingBatch": "trajectories group mask advantages action_targets temperature",
    "TrainingStep": "iteration seed progress",
    "Trajectories": "histories table",
    "Turn": "prompt completion ids logprobs legal system refused",
    "Words": "contexts seeds turns",
    "evaluate": "target suite against part num_problems num_rollouts seed trust_code progress",
    "load_suite": "name_or_path trust",
    "plots": "run",
    "show": "run height",
    "train": "config run_dir settings trust_code progress on_iteration",
}
"""The face as it has been since 0.2: names and members, each with the parameters that may be given. Add to
it; take nothing away."""


def test_the_face_only_grows() -> None:
    for name, known in PARAMETERS.items():
        public, _, member = name.partition(".")
        assert public in rmft.__all__, f"{public} was public"
        found = getattr(rmft, public)
        if member:
            found = getattr(found, member)
        if known:
            assert set(known.split()) <= set(inspect.signature(found).parameters), name


def test_every_name_of_the_face_is_documented_and_no_other_is_offered() -> None:
    for name in rmft.__all__:
        assert inspect.getdoc(getattr(rmft, name)), name
    assert set(rmft.__all__) <= set(dir(rmft))
    with pytest.raises(AttributeError, match="'rmft' has no attribute 'trian'"):
        _ = rmft.trian  # type: ignore[attr-defined]


def test_the_whole_face_loads_no_torch_and_importing_rmft_loads_next_to_nothing() -> None:
    code = """
import sys
import rmft
before = {name.partition(".")[0] for name in sys.modules}
for name in rmft.__all__:
    getattr(rmft, name)
after = {name.partition(".")[0] for name in sys.modules}
assert not {"numpy", "pydantic"} & before, before
assert {"numpy", "pydantic"} <= after and not {"torch", "transformers", "openai"} & after, after
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_type_checker_sees_the_types(tmp_path: Path) -> None:
    """In a user's strict program: right calls pass, misspelt names and wrong types are found."""
    (tmp_path / "right.py").write_text(
        "import rmft\n"
        "run = rmft.train({'iterations': 1}, 'run')\n"
        "mean: float | None = rmft.evaluate(run).overall['best'].measures['regret'].mean\n"
        "rules = rmft.Rules('bandit', horizon=3, num_arms=2)\n"
    )
    (tmp_path / "wrong.py").write_text(
        "import rmft\nrmft.trian\nrmft.train(3)\nrmft.Rules('bandits', 3, 2)\n"
    )
    source = Path(rmft.__file__).parent
    assert (source / "py.typed").exists()
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    where = {**os.environ, "MYPYPATH": str(source.parent)}
    done = subprocess.run(
        [*command, "right.py", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=where,
    )
    found = [line for line in done.stdout.splitlines() if "error:" in line]
    assert [line.rsplit("[")[-1] for line in found if "wrong.py" in line] == [
        "attr-defined]",
        "arg-type]",
        "arg-type]",
    ]
    assert not [line for line in found if "right.py" in line]


def test_a_run_is_trained_and_evaluated_in_python(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    seen: list[int] = []
    config = {
        "suite": "smoke",
        "iterations": 1,
        "num_threads": 1,
        "policy": {"width": 8, "num_heads": 1},
        "rollout": {"num_problems": 4, "num_rollouts": 4},
        "credit": {"num_selected": 2},
        "validation": {"num_problems": 4},
    }
    run = rmft.train(
        config,
        tmp_path / "run",
        settings=["seed=5"],
        on_iteration=lambda metrics: seen.append(metrics["iteration"]),
    )
    assert (run, seen) == (tmp_path / "run", [0, 1])
    result = rmft.evaluate(run, against=["ucb1"], num_problems=4)
    assert result.policies == ["best", "ucb1"]
    assert evaluation_in(run).read_text() == result.to_json()
    with pytest.raises(rmft.RmftError, match="exists already"):
        rmft.train(config, run)
    with pytest.raises(rmft.RmftError, match=r"iteratoins.*iterations"):
        rmft.train({"iteratoins": 1}, tmp_path / "other")
