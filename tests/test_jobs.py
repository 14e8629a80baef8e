"""What is to be played leaves the process; and a process loads a language model once."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rmft.generators.loading import HeldModel, load_model
from rmft.improve import rollouts_of
from rmft.policies.config import ArmEncoderConfig
from rmft.policies.numeric import NumericPolicy, load_network, new_network, save_network
from rmft.problems.suites import suite_from
from rmft.rollout import Player, Rollouts, rollout_in_pieces
from rmft.types import PolicyRef, Trajectories

EXAMPLES = Path(__file__).parents[1] / "examples"
ELSEWHERE = """
import pickle, sys
from pathlib import Path
from rmft.wiring.policies import load_policy, torch_threads
from rmft.rollout import rollout_in_pieces
torch_threads(1)
player, rollouts = pickle.loads(Path(sys.argv[1]).read_bytes())
policy = load_policy(player)
Path(sys.argv[2]).write_bytes(pickle.dumps(list(rollout_in_pieces(lambda _: policy, rollouts))))
"""


def rollouts(folder: Path) -> Rollouts:
    """Three rollouts of each of four problems, against an opponent of one's own."""
    shutil.copy(EXAMPLES / "my_process.py", folder)
    setting = {
        "name": "own", "feedback": "bandit", "horizon": 6, "num_arms": 3,
        "reward_process": {"kind": "my_process:MyProcess", "gap": 0.4},
        "environment": "my_process:MyEnvironment",
    }  # fmt: skip
    suite = suite_from(
        {"name": "own", "title": "Own", "train": {"settings": [setting]}}, "suite", str(folder), trust=True
    )
    (batch,) = suite.draw("train", 4)
    paths = [(1, problem, rollout) for problem in range(4) for rollout in range(3)]
    return rollouts_of(batch, 3, 0, paths)


def same(one: Trajectories, other: Trajectories) -> bool:
    return all(
        np.array_equal(getattr(one.histories, name), getattr(other.histories, name))
        for name in ("arms", "rewards", "probabilities")
    ) and np.array_equal(one.table.rewards, other.table.rewards)


def test_another_process_plays_the_same(tmp_path: Path) -> None:
    job, config = rollouts(tmp_path), ArmEncoderConfig(width=8, num_heads=2)
    network = new_network(config, 0)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.3
    save_network(tmp_path, network, config)
    player = Player(PolicyRef("numeric", tmp_path), temperature=1.5)
    (tmp_path / "job").write_bytes(pickle.dumps((player, job)))
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, tmp_path / "job", tmp_path / "played"], check=True, cwd="/"
    )
    elsewhere = Trajectories.concatenate(pickle.loads((tmp_path / "played").read_bytes()))
    policy = NumericPolicy(load_network(tmp_path)[0], 1.5)
    here = Trajectories.concatenate(list(rollout_in_pieces(lambda _: policy, job)))
    assert same(here, elsewhere)
    assert len(set(map(tuple, here.histories.arms.tolist()))) > 3
    parts = [
        Trajectories.concatenate(list(rollout_in_pieces(lambda _: policy, part))) for part in job.parts(7)
    ]
    assert [len(part) for part in parts] == [6, 6]  # whole problems
    together = Trajectories.concatenate(parts)
    assert np.array_equal(together.histories.arms, here.histories.arms)
    assert together.histories.probabilities == pytest.approx(here.histories.probabilities, abs=1e-5)


@pytest.mark.parametrize(("at_once", "sizes"), [(1, [3] * 4), (3, [3] * 4), (9, [9, 3]), (99, [12])])
def test_parts_are_of_whole_problems(at_once: int, sizes: list[int], tmp_path: Path) -> None:
    parts = list(rollouts(tmp_path).parts(at_once))
    assert [len(part) for part in parts] == sizes
    assert [path for part in parts for path in part.paths] == list(rollouts(tmp_path).paths)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_held_model_is_left_as_it_was(tiny_llama: Path, tmp_path: Path, precision: str) -> None:
    from peft import LoraConfig, get_peft_model

    folders = []
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, _ = load_model(str(tiny_llama), "float32", "cpu")
            settings = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
            get_peft_model(model, settings).save_pretrained(tmp_path / str(seed))
        folders.append(tmp_path / str(seed))
    held = HeldModel(str(tiny_llama), precision, "cpu")
    bare = {name: weight.clone() for name, weight in held.model.state_dict().items()}
    for adapter in (*folders, None, folders[0]):
        held.adapt(adapter)
        expected = load_model(str(tiny_llama), precision, "cpu", adapter)[0].state_dict()
        found = held.model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert adapter is None or not all(torch.equal(found[name], bare[name]) for name in bare)
    held.rest()
    assert all(torch.equal(held.model.state_dict()[name], bare[name]) for name in bare)
