"""The policy that a language model plays, and Iterative RMFT on it, with a tiny random model."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import LlamaForCausalLM

from batches import batch_of
from rmft.cli import main
from rmft.errors import ConfigError
from rmft.generators.loading import load_model
from rmft.generators.local import LocalEngine
from rmft.policies.config import LocalConfig, LoraConfig
from rmft.policies.language import LanguagePolicy, check, load_language_policy
from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.scenarios.contexts import as_text, own_contexts
from rmft.scenarios.wording import Wording
from rmft.streams import Streams
from rmft.training.config import LocalTraining
from rmft.training.local import LocalTrainer, new_policy
from rmft.types import (
    Histories,
    Observation,
    RewardTable,
    Rules,
    Shown,
    TrainingStep,
    Trajectories,
    Words,
)
from run_files import evaluation_in

WORDS = Words("train", np.arange(1))
SWITCHES = [
    Wording(style=style, hint=hint, history=history, answer=answer, reasoning=reasoning, rewards=rewards)
    for style, (hint, rewards), history, answer, reasoning in itertools.product(
        ("terse", "full"),
        ((False, "raw"), (True, "scaled")),
        ("raw", "summary"),
        ("arm", "distribution"),
        ("off", "brief", "free"),
    )
]


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path) -> Path:
    return tiny_llama


def policy(folder: Path, *, sample_arms: bool = False, **settings: object) -> LanguagePolicy:
    config = LocalConfig.model_validate({"model": str(folder), "reasoning_budget": 5, **settings})
    model, tokenizer = load_model(str(folder), "float32", "cpu")
    return LanguagePolicy(LocalEngine(model, config.memory_gb), tokenizer, config, sample_arms=sample_arms)


def play(player: LanguagePolicy, rules: Rules, size: int = 4) -> Trajectories:
    generator = np.random.default_rng(0)
    rewards = generator.random((size, rules.horizon, rules.num_arms)).round(2)
    environment = TableEnvironment(rules, RewardTable(rewards, rewards))
    streams = Streams.at(0, [(row,) for row in range(size)])
    return rollout(player, environment, streams, Words("train", np.arange(size) // 2))


@torch.inference_mode()
def rescored(player: LanguagePolicy, histories: Histories, row: int) -> float:
    """How far the stored log probabilities of one row are from those of one plain pass over its tokens."""
    turns = [turns[row] for turns in histories.words.turns]
    ids = np.concatenate([turn.ids for turn in turns])
    stored = np.concatenate([turn.logprobs for turn in turns])
    logits = player.engine.model(torch.from_numpy(ids)[None]).logits[0].double()
    ends = set(np.cumsum([len(turn.ids) for turn in turns]) - 1)
    worst, legal = 0.0, {end: turn.legal for end, turn in zip(sorted(ends), turns, strict=True)}
    for position in np.flatnonzero(np.isfinite(stored)):
        among = legal.get(position)
        mixes = player.config.wording.answer == "distribution"
        if among is None and mixes and ids[position] in digits(player):
            among = np.array(sorted(digits(player)))
        scores = logits[position - 1] if among is None else logits[position - 1, among]
        at = int(ids[position]) if among is None else int(np.flatnonzero(among == ids[position])[0])
        worst = max(worst, abs(float(scores.log_softmax(-1)[at]) - stored[position]))
    return worst


def digits(player: LanguagePolicy) -> set[int]:
    return {player.tokenizer.encode(f"={digit}", add_special_tokens=False)[-1] for digit in range(10)}


@pytest.mark.parametrize("rounds", ["messages", "log"])
@pytest.mark.parametrize("wording", SWITCHES, ids=lambda w: "-".join(map(str, w.model_dump().values())))
def test_every_wording_plays_within_its_length(tiny: Path, wording: Wording, rounds: str) -> None:
    player = policy(tiny, wording=wording, rounds=rounds)
    rules = Rules("full" if wording.answer == "distribution" else "bandit", 3, 3)
    histories = play(player, rules).histories
    lengths = np.sum([[len(turn.ids) for turn in turns] for turns in histories.words.turns], axis=0)
    assert lengths.max() <= player.longest(rules)
    if wording.answer == "arm":
        assert histories.arms.min() >= 0
    if wording.reasoning == "off":
        assert max(rescored(player, histories, row) for row in range(4)) < 1e-4


@pytest.mark.parametrize("feedback", ["bandit", "full"])
def test_a_log_is_one_answer_with_a_line_for_each_round(tiny: Path, feedback: str) -> None:
    player = policy(tiny, rounds="log", sample_arms=True)
    histories = play(player, Rules(feedback, 4, 3)).histories
    for row in range(4):
        turns = [turns[row] for turns in histories.words.turns]
        opening, text = turns[0].ids.tolist(), player.tokenizer.decode(np.concatenate([t.ids for t in turns]))
        assert opening[:-1] == player.chat.opening(turns[0].system, turns[0].prompt)
        letters = [player.tokenizer.decode(turn.ids[-1:]) for turn in turns]
        gap = ":" if feedback == "full" else ""
        lines = [f"{letter}{gap}{turn.prompt}\n" for letter, turn in zip(letters, turns[1:], strict=False)]
        assert text == player.tokenizer.decode(opening[:-1]) + "".join(lines) + letters[-1]
        if feedback == "full":  # what an option paid stands after the token by which it is chosen
            told = set(turns[-1].ids[:-1].tolist())
            assert set(turns[0].legal.tolist()) <= told


def test_a_log_saves_the_tokens_that_a_chat_puts_around_a_round(tiny: Path) -> None:
    messages, log = policy(tiny), policy(tiny, rounds="log")
    template = len(messages.chat.turn("1")) - len(messages.tokenizer.encode("1\n", add_special_tokens=False))
    assert template > 5
    rules = Rules("bandit", 20, 3)
    assert messages.longest(rules) - log.longest(rules) == 19 * template


def test_reasoning_is_sampled_freely_and_rescores(tiny: Path) -> None:
    player = policy(tiny, wording={"reasoning": "brief"})
    histories = play(player, Rules("bandit", 4, 3)).histories
    assert max(rescored(player, histories, row) for row in range(4)) < 1e-4
    sampled = [np.isfinite(turn.logprobs).sum() for turns in histories.words.turns for turn in turns]
    assert min(sampled) >= 1
    assert max(sampled) == 6, "five tokens of reasoning and one letter"


def test_the_rollouts_of_a_problem_are_told_the_same_and_problems_are_not(tiny: Path) -> None:
    told = [turn.system for turn in play(policy(tiny), Rules("bandit", 2, 3)).histories.words.turns[0]]
    assert told[0] == told[1]
    assert told[2] == told[3]
    assert told[0] != told[2]


def test_under_full_information_it_is_judged_by_the_distribution_and_trained_on_arms(tiny: Path) -> None:
    rules = Rules("full", 3, 2)
    judged, trained = play(policy(tiny), rules), play(policy(tiny, sample_arms=True), rules)
    assert (judged.histories.arms == -1).all()
    assert ((judged.histories.played > 0) & (judged.histories.played < 1)).any()
    assert (trained.histories.arms >= 0).all()


def test_a_run_that_does_not_fit_says_so_before_it_starts(tiny: Path) -> None:
    config = LocalConfig(model=str(tiny))
    with pytest.raises(ConfigError, match=r"longest horizon that fits is (\d+)") as raised:
        check(config, [(Rules("bandit", 500, 2), WORDS)])
    fits = int(str(raised.value).split("that fits is ")[1].split(";")[0])
    check(config, [(Rules("bandit", fits, 2), WORDS)])
    with pytest.raises(ConfigError):
        check(config, [(Rules("bandit", fits + 1, 2), WORDS)])
    with pytest.raises(ConfigError, match="memory_gb"):
        check(config.model_copy(update={"memory_gb": 1e-6}), [(Rules("bandit", 5, 2), WORDS)])


def test_unknown_names_have_a_nearest_one(tiny: Path) -> None:
    with pytest.raises(LookupError, match="Did you mean 'smollm2-135m'"):
        check(LocalConfig(model="smollm2-135"), [])
    with pytest.raises(LookupError, match="Did you mean 'adverts'"):
        check(LocalConfig(model=str(tiny)), [(Rules("bandit", 5, 2), replace(WORDS, contexts="advert"))])


CONFIG = {
    "name": "tiny",
    "suite": "words/bandits",
    "iterations": 2,
    "rollout": {"num_problems": 4, "num_rollouts": 4},
    "credit": {"kind": "top_k_regret", "num_selected": 2},
    "training": {"batch_size": 4, "learning_rate": 0.01},
    "validation": {"every": 1, "num_problems": 4},
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "policy": {"kind": "local", "model": str(tiny)}}))
    return path


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("runs") / "undisturbed"
    main_(["train", config, "--run-dir", where])
    return where


def main_(arguments: list[object]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code


def content(run: Path) -> dict[str, bytes]:
    """Every file of a run that must not depend on kills, but for start times and seconds spent."""
    skipped = {"run.json", "timings.jsonl", "log.txt", ".lock"}
    paths = [path for path in run.rglob("*") if path.is_file() and path.name not in skipped]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def test_a_run_keeps_every_rollout_in_words_and_tokens(run: Path) -> None:
    lines = gzip.decompress((run / "trajectories/000001.jsonl.gz").read_bytes()).splitlines()
    rollouts = [json.loads(line) for line in lines]
    assert len(rollouts) == 16
    metrics = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])
    assert np.mean([each["regret"] for each in rollouts]) == pytest.approx(metrics["rollout"]["regret"])
    for each in rollouts:
        assert len(each["rounds"]) == 8
        for index, played in enumerate(each["rounds"]):
            assert played["seen"] == each["rewards"][index][played["arm"]]
            assert len(played["ids"]) == len(played["logprobs"])
            named = [value for value in played["logprobs"] if value is not None]
            assert np.exp(named[-1]) == pytest.approx(played["probabilities"][played["arm"]])
    kept = [each for each in rollouts if any(played["mask"] for played in each["rounds"])]
    assert len(kept) == 8


@pytest.mark.parametrize(
    ("setting", "message"),
    [("targets=[q_prog]", "Did you mean 'q_proj'"), ("num_layers=99", "expected at most 2")],
)
def test_adapters_that_the_model_has_no_place_for_are_refused_at_the_start(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        main(["train", str(config), "--run-dir", str(tmp_path / "run"), "--set", f"policy.lora.{setting}"])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_evaluate_report_and_export_take_such_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    main_(["evaluate", copy, "--num-problems", 8, "--against", "start", "--against", "thompson"])
    written = json.loads(evaluation_in(copy).read_text())
    assert {"best", "start", "thompson"} == written["overall"].keys()
    (said,) = copy.glob("conversations-*-held_out-*.jsonl.gz")
    lines = [json.loads(line) for line in gzip.decompress(said.read_bytes()).splitlines()]
    both = [(problem, name) for problem in range(8) for name in ("best", "start")]
    assert sorted((line["problem"], line["policy"]) for line in lines) == both
    for line in lines:
        named = [line["options"][each["arm"]][0] for each in line["rounds"]]
        assert [each["completion"].strip()[-1] for each in line["rounds"]] == named, (
            "the letters that it was told"
        )
        assert all(name in line["rounds"][0]["system"] for _, name in line["options"])
    main_(["report", copy])
    assert (copy / "report.html").stat().st_size > 1000
    main_(["export", copy, "-o", tmp_path / "exported", "--merge"])
    assert (tmp_path / "exported" / "README.md").exists()
    LlamaForCausalLM.from_pretrained(tmp_path / "exported")
    capsys.readouterr()
    main_(["export", copy, "-o", tmp_path / "adapter", "--check"])
    assert re.search(r"in \d+ decisions: at most \d.\de-\d\d from the policy's", capsys.readouterr().err)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("rolling out", marks=pytest.mark.slow),
        "rolled out 16 of 16",
        "training",
        pytest.param("validating", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_any_step_ends_as_if_it_had_not_been(
    config: Path, run: Path, tmp_path: Path, step: str
) -> None:
    """SIGKILL of a process of its own, as it says that it is at that step of iteration 2."""
    killed = tmp_path / "killed"
    code = (
        "import os, signal\nfrom rmft import progress\n"
        f"progress.TrainingProgress.on_step = lambda self, step: step == {step!r} and self.iteration == 1 "
        "and os.kill(os.getpid(), signal.SIGKILL)\n"
        f"from rmft.cli import main\nmain(['train', {str(config)!r}, '--run-dir', {str(killed)!r}])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len((killed / "metrics.jsonl").read_bytes().splitlines()) == 2
    assert not (killed / "result.json").exists()
    main_(["resume", killed])
    assert content(killed) == content(run)


@pytest.mark.parametrize("best", [1, 2])
def test_a_damaged_adapter_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], best: int
) -> None:
    """Of whichever iteration it is that is evaluated, which is the one of lowest validation regret."""
    copy = shutil.copytree(run, tmp_path / "run")
    records = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    records[best]["validation"]["regret"]["mean"] = -1.0
    (copy / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({**result, "best_iteration": best}))
    (copy / "checkpoints" / f"{best:06d}" / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(copy), "--num-problems", "4", "--against", "start"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"The adapter in '{copy / 'checkpoints' / f'{best:06d}'}' does not fit the m" in said
    assert "damaged" in said


def test_smollm2_itself_plays_rescores_and_learns(smollm2: Path, tmp_path: Path) -> None:
    """What it chose becomes likelier by one step on it."""
    config = LocalConfig(model=str(smollm2), lora=LoraConfig(rank=4, num_layers=4), device="cpu")
    start, target = tmp_path / "start", tmp_path / "next"
    start.mkdir()
    target.mkdir()
    policy_ref = new_policy(config, 0, start)
    player = load_language_policy(start)
    trajectories = play(player, Rules("bandit", 3, 2))
    assert max(rescored(player, trajectories.histories, row) for row in range(4)) < 1e-4
    training = LocalTraining(learning_rate=1e-3, warmup=0, batch_size=4)
    trainer = LocalTrainer(training, config)
    batches = [batch_of(trajectories, np.ones((4, 3)))]
    trained, figures = trainer.train(policy_ref, batches, target, TrainingStep(1, 0, 0.0))
    assert figures["steps"] == 1
    histories, after = trajectories.histories, load_language_policy(trained.path)
    gained = 0.0
    for index in range(3):
        again = after.decide(histories.prefix(index), Streams.at(0, [(row,) for row in range(4)]))
        before = histories.probabilities[np.arange(4), index, histories.arms[:, index]]
        gained += np.log(again.probabilities[np.arange(4), histories.arms[:, index]] / before).sum()
    assert gained > 0


def test_own_words_are_measured_and_hold_no_marks_of_the_chat(tiny: Path) -> None:
    """A description of 200 characters takes more tokens than any of the package's words."""
    about = {"arm": "brand", "arms": "brands", "unit": "sale", "units": "sales", "situation": "A shop."}

    def words(said: str) -> Words:
        own = own_contexts([{"name": "shop", "descriptions": {"Keebler": said}, **about}], "mine")
        return Words(as_text(own), np.arange(4) // 2, names=np.array([["Sunshine", "Keebler"]] * 4))

    player, rules = policy(tiny, wording=Wording(style="full")), Rules("bandit", 3, 2)
    long = words("饼干" * 99)
    assert player.longest(rules, long) > player.longest(rules)
    environment = TableEnvironment(rules, RewardTable(np.ones((4, 3, 2)), np.ones((4, 3, 2))))
    played = rollout(player, environment, Streams.at(0, [(row,) for row in range(4)]), long)
    assert "Keebler" in played.histories.words.turns[0][0].system
    with pytest.raises(ConfigError, match=r"hold <\|im_end\|>, which .* reads as a mark between messages"):
        player.longest(rules, words("nice<|im_end|>"))


def test_what_is_shown_is_told_and_holds_no_marks_of_the_chat(tiny: Path) -> None:
    rules = Rules("bandit", 3, 2, shown=Shown(("age",), text_length=30))
    player = policy(tiny, wording=Wording(style="full"))
    assert player.longest(rules) > player.longest(Rules("bandit", 3, 2)) + 3 * 30 - 10

    def play(text: str) -> Trajectories:
        shown = Observation(np.zeros((2, 3, 1)), texts=np.full((2, 3), text))
        table = RewardTable(np.ones((2, 3, 2)), np.ones((2, 3, 2)), shown)
        return rollout(player, TableEnvironment(rules, table), Streams.at(0, [(0,), (1,)]))

    turns = play("饼" * 10).histories.words.turns
    assert ["饼" * 10 in each[0].prompt for each in turns] == [True] * 3
    with pytest.raises(ConfigError, match=r"hold <\|im_end\|>, which .* reads as a mark between messages"):
        play("nice<|im_end|>")
