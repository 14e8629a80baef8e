"""What is recorded of an iteration reads back as it was, is trained on again, and is evaluated off-policy."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, TokenizersBackend

from rmft.commands import export_training_data
from rmft.credit import PolicyGradientCredit, TopKRegret, credit
from rmft.errors import ConfigError, RunDirectoryError, UnknownNameError
from rmft.evaluation.off_policy import estimates, off_policy
from rmft.policies.baselines.catalogue import make_baseline
from rmft.policies.config import ArmEncoderConfig, LocalConfig
from rmft.policies.numeric import NumericPolicy, load_network
from rmft.problems.environment import TableEnvironment
from rmft.records.arrays import ARRAYS, to_arrays
from rmft.records.batch import RecordedBatch, Told
from rmft.records.files import paths_of, read_record
from rmft.records.lines import lines
from rmft.regret import round_regret
from rmft.rollout import rollout
from rmft.run_directory import write_lines
from rmft.streams import Streams, generator
from rmft.training.config import LocalTraining, NumericTraining, PolicyGradient
from rmft.training.local import LocalTrainer
from rmft.training.local import new_policy as new_model
from rmft.training.numeric import NumericTrainer, new_policy
from rmft.training_data import training_rows
from rmft.types import (
    Decisions,
    Histories,
    PolicyRef,
    RewardTable,
    Rules,
    TrainingBatch,
    TrainingStep,
    Trajectories,
    Turn,
    Words,
)  # fmt: skip
from run_files import write_run, write_words

PROBLEMS, ROLLOUTS, HORIZON, ARMS = 5, 4, 6, 3
GROUP = np.repeat(np.arange(PROBLEMS) * 2 + 1, ROLLOUTS)
LEGAL = np.array([30, 31, 32])
TOLD = {seed: Told("a context", (("A", "one"), ("B", "two"), ("C", "three"))) for seed in range(100)}
STEP = TrainingStep(iteration=1, seed=3, progress=0.5)


def table(seed: int = 1) -> RewardTable:
    """One for each problem, the same for its rollouts."""
    draws = np.random.default_rng(seed)
    means = np.repeat(draws.random((PROBLEMS, 1, ARMS)), HORIZON, axis=1)
    return RewardTable((draws.random(means.shape) < means).astype(float), means).repeat(ROLLOUTS)


def learned_from(trajectories: Trajectories, *, gradient: bool, temperature: float = 1.0) -> RecordedBatch:
    regret = round_regret(trajectories, "pseudo")
    config = PolicyGradientCredit() if gradient else TopKRegret(num_selected=2)
    batch = credit(trajectories, regret, GROUP, config, generator(0), temperature)
    told = TOLD if trajectories.histories.words.turns else {}
    return RecordedBatch("some/setting", "pseudo", batch, np.arange(len(GROUP)) % ROLLOUTS, regret, told)


def through_files(record: Sequence[RecordedBatch], run_dir: Path) -> list[RecordedBatch]:
    """Written as a run writes it, and read back."""
    arrays, words = paths_of(run_dir, 7)
    arrays.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arrays, **to_arrays(record))
    write_lines(words, lines(record))
    return read_record(run_dir, 7)


def numeric(tmp_path: Path) -> tuple[PolicyRef, Trajectories]:
    folder = tmp_path / "start"
    folder.mkdir()
    policy = new_policy(ArmEncoderConfig(width=16, num_heads=2, num_layers=1), 0, folder)
    player = NumericPolicy(load_network(policy.path)[0])
    environment = TableEnvironment(Rules("bandit", HORIZON, ARMS), table())
    streams = Streams.at(2, [(row,) for row in range(len(GROUP))])
    return policy, rollout(player, environment, streams)


def in_words() -> Trajectories:
    """Made up: told tokens, some sampled ones, and one of LEGAL; a row fails in the fourth round."""
    draws = np.random.default_rng(0)
    size, openings = len(GROUP), np.random.default_rng(1).integers(3, 30, (PROBLEMS, 5))
    histories = Histories(
        Rules("bandit", HORIZON, ARMS, (0.0, np.inf)),
        size,
        Words("train", np.repeat(np.arange(PROBLEMS), ROLLOUTS)),
    )
    for index in range(HORIZON):
        lost = index >= 3
        arms, stated = draws.integers(ARMS, size=size), draws.dirichlet(np.ones(ARMS), size=size)
        turns = []
        for row in range(size):
            told = draws.integers(3, 30, 3) if index else openings[row // ROLLOUTS]
            thought = draws.integers(3, 30, draws.integers(3))
            ids = np.concatenate([told, thought, [LEGAL[arms[row]]]])
            logprobs = np.where(np.arange(len(ids)) < len(told), np.nan, -draws.random(len(ids)))
            system, refused = ("" if index else "You choose."), ((("Hm.", "Again."),) if row == 2 else ())
            turns.append(Turn(f"told {row}", "said", ids, logprobs, LEGAL, system, refused, cut=row == 1))
        if lost:
            arms[6], stated[6], turns[6] = -1, 0.0, Turn("", "")
        failed = {6: "no answer"} if lost else {}
        histories.append(Decisions(arms, stated, tuple(turns), failed), draws.random(size))
    return Trajectories(histories, table())


def same(one: RecordedBatch, other: RecordedBatch) -> None:
    """Equal to single precision, in all but the distributions."""
    a, b = one.learned, other.learned
    histories, again = a.trajectories.histories, b.trajectories.histories
    assert (one.setting, one.regret_kind, a.temperature) == (other.setting, other.regret_kind, b.temperature)
    assert (a.trajectories.rules, histories.failed) == (b.trajectories.rules, again.failed)
    pairs = [
        (one.rollout, other.rollout), (one.regret, other.regret), (a.group, b.group), (a.mask, b.mask),
        (a.advantages, b.advantages), (histories.arms, again.arms), (histories.rewards, again.rewards),
        (histories.played, again.played), (histories.words.seeds, again.words.seeds),
        (a.trajectories.table.rewards, b.trajectories.table.rewards),
        (a.trajectories.table.expected_rewards, b.trajectories.table.expected_rewards),
        (histories.propensities, again.propensities),
    ]  # fmt: skip
    for stored, read in pairs:
        np.testing.assert_array_equal(
            np.asarray(stored, dtype=np.float32), np.asarray(read, dtype=np.float32)
        )


def bytes_of(policy: PolicyRef, suffix: str) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in policy.path.glob(f"**/*{suffix}")}
    assert found
    return found


def test_a_policy_trained_on_what_was_read_back_is_the_same(tmp_path: Path) -> None:
    policy, trajectories = numeric(tmp_path)
    recorded = learned_from(trajectories, gradient=True, temperature=1.5)
    [again] = through_files([recorded], tmp_path)
    same(recorded, again)
    trainer = NumericTrainer(NumericTraining(learning_rate=0.01, epochs=2, batch_size=8))
    trained = []
    for name, each in (("a", recorded), ("b", again)):
        (tmp_path / name).mkdir()
        trained.append(trainer.train(policy, [each.learned], tmp_path / name, STEP)[0])
    assert bytes_of(trained[0], ".safetensors") == bytes_of(trained[1], ".safetensors")


def test_with_a_kl_term_it_is_the_same_to_the_precision_of_distributions(tmp_path: Path) -> None:
    policy, trajectories = numeric(tmp_path)
    recorded = learned_from(trajectories, gradient=True)
    [again] = through_files([recorded], tmp_path)
    stated, read = (each.learned.trajectories.histories.probabilities for each in (recorded, again))
    np.testing.assert_allclose(read, stated, rtol=2**-9)
    config = NumericTraining(learning_rate=0.01, batch_size=20, objective=PolicyGradient(kl_coef=1.0))
    weights = []
    for name, each in (("a", recorded), ("b", again)):
        (tmp_path / name).mkdir()
        trained, _ = NumericTrainer(config).train(policy, [each.learned], tmp_path / name, STEP)
        weights.append(load_network(trained.path)[0].state_dict())
    for name, weight in weights[0].items():
        np.testing.assert_allclose(weights[1][name], weight, atol=2e-3)


def test_a_language_model_trained_on_what_was_read_back_is_the_same(tmp_path: Path) -> None:
    base = tmp_path / "tiny"
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=40, pad_token_id=0, **shape)).save_pretrained(base)
    core = Tokenizer(WordLevel({f"w{index}": index for index in range(40)}, unk_token="w0"))
    TokenizersBackend(tokenizer_object=core, pad_token="w0", eos_token="w2").save_pretrained(base)
    config = LocalConfig.model_validate({"model": str(base), "lora": None, "device": "cpu"})
    recorded = learned_from(in_words(), gradient=True, temperature=1.25)
    [again] = through_files([recorded], tmp_path)
    same(recorded, again)
    for stored, read in zip(
        recorded.learned.trajectories.histories.words.turns,
        again.learned.trajectories.histories.words.turns,
        strict=True,
    ):
        for one, other in zip(stored, read, strict=True):
            assert (one.prompt, one.completion, one.system, one.refused) == (
                other.prompt,
                other.completion,
                other.system,
                other.refused,
            )
            for key in ("ids", "logprobs", "legal"):
                np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
    (tmp_path / "start").mkdir()
    start = new_model(config, 0, tmp_path / "start")
    training = LocalTraining(learning_rate=0.01, batch_size=8, objective=PolicyGradient(kl_coef=0.5))
    trained = []
    for name, each in (("a", recorded), ("b", again)):
        (tmp_path / name).mkdir()
        trained.append(LocalTrainer(training, config).train(start, [each.learned], tmp_path / name, STEP)[0])
    assert bytes_of(trained[0], ".safetensors") == bytes_of(trained[1], ".safetensors")


@pytest.mark.parametrize("mixed", [False, True])
def test_full_information_reads_back_with_its_targets(tmp_path: Path, mixed: bool) -> None:
    draws, size = np.random.default_rng(5), len(GROUP)
    tables = table()
    histories = Histories(Rules("full", HORIZON, ARMS), size)
    for index in range(HORIZON):
        stated, arms = draws.dirichlet(np.ones(ARMS), size=size), draws.integers(ARMS, size=size)
        histories.append(Decisions(None if mixed else arms, stated), tables.rewards[:, index])
    played = Trajectories(histories, tables)
    targets = draws.normal(size=(size, HORIZON, ARMS))
    mask, ones = draws.random((size, HORIZON)) < 0.5, np.ones((size, HORIZON))
    batch = TrainingBatch(played, GROUP, mask, ones, targets)
    recorded = RecordedBatch("x", "static", batch, np.arange(size) % ROLLOUTS, round_regret(played, "static"))
    [again] = through_files([recorded], tmp_path)
    np.testing.assert_allclose(again.learned.action_targets, targets, rtol=1e-6)
    stated = again.learned.trajectories.histories.played
    np.testing.assert_allclose(stated, histories.played, rtol=2**-9)


def test_an_opponent_that_adapts_has_a_table_for_every_rollout(tmp_path: Path) -> None:
    _, trajectories = numeric(tmp_path)
    rewards = np.random.default_rng(3).random(trajectories.table.rewards.shape)
    adapted = Trajectories(trajectories.histories, RewardTable(rewards, rewards))
    recorded = learned_from(adapted, gradient=False)
    same(recorded, through_files([recorded], tmp_path)[0])


def spoiled(run_dir: Path, name: str, change: object) -> None:
    path = paths_of(run_dir, 7)[0]
    arrays = dict(np.load(path))
    key = f"some/setting/{name}"
    if change is None:
        del arrays[key]
    else:
        arrays[key] = change(arrays[key])  # type: ignore[operator]
    np.savez(path, **arrays)


def to_one_arm_less(arms: np.ndarray) -> np.ndarray:
    return np.where(arms == 0, ARMS, arms)


@pytest.mark.parametrize(
    "change", [None, lambda each: each[:-1], lambda each: each.astype("S9"), lambda each: each[None]]
)
@pytest.mark.parametrize("name", [name for name, stored in ARRAYS.items() if stored.required])
def test_arrays_that_are_no_record_are_refused(tmp_path: Path, name: str, change: object) -> None:
    through_files([learned_from(in_words(), gradient=False)], tmp_path)
    spoiled(tmp_path, name, change)
    with pytest.raises(RunDirectoryError, match="record of iteration 7"):
        read_record(tmp_path, 7)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("arm", lambda each: np.where(each == 0, np.int16(ARMS), each)),
        ("probabilities", lambda each: each * 2),
        ("advantage", lambda each: each * np.nan),
        ("rewards", lambda each: each + np.inf),
        ("about", lambda each: np.array(each.item().replace('"bandit"', '"nothing"'))),
        ("about", lambda each: np.array(each.item().replace(f'"horizon":{HORIZON}', '"horizon":999999'))),
    ],
)
def test_numbers_that_no_rollout_has_are_refused(tmp_path: Path, name: str, change: object) -> None:
    through_files([learned_from(in_words(), gradient=False)], tmp_path)
    spoiled(tmp_path, name, change)
    with pytest.raises(RunDirectoryError, match="record of iteration 7"):
        read_record(tmp_path, 7)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    through_files([learned_from(in_words(), gradient=False)], tmp_path)
    spoiled(tmp_path, "failure", lambda each: each.astype(object))
    with pytest.raises(RunDirectoryError, match="damaged"):
        read_record(tmp_path, 7)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line | {"problem": 99},
        lambda line: line | {"rounds": line["rounds"][1:]},
        lambda line: line | {"rounds": [{**line["rounds"][0], "ids": [1]}, *line["rounds"][1:]]},
        lambda line: line | {"rounds": [{**line["rounds"][0], "prompt": 3}, *line["rounds"][1:]]},
        lambda line: [line],
    ],
)
def test_lines_that_do_not_fit_are_refused(tmp_path: Path, change: object) -> None:
    through_files([learned_from(in_words(), gradient=False)], tmp_path)
    path = paths_of(tmp_path, 7)[1]
    first, *rest = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join([json.dumps(change(json.loads(first))).encode(), *rest])))  # type: ignore[operator]
    with pytest.raises(RunDirectoryError, match="record of iteration 7"):
        read_record(tmp_path, 7)
    path.unlink()
    with pytest.raises(RunDirectoryError, match="record of iteration 7"):
        read_record(tmp_path, 7)


def test_what_is_missing_or_of_version_0_1_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no record of iteration 7"):
        read_record(tmp_path, 7)
    through_files([learned_from(in_words(), gradient=False)], tmp_path)
    spoiled(tmp_path, "about", None)
    with pytest.raises(RunDirectoryError, match=r"version 0\.1"):
        read_record(tmp_path, 7)


def test_old_names_of_tokens_are_read(tmp_path: Path) -> None:
    recorded = learned_from(in_words(), gradient=False)
    through_files([recorded], tmp_path)
    path = paths_of(tmp_path, 7)[1]
    old = gzip.decompress(path.read_bytes()).replace(b'"logprobs"', b'"log_probabilities"')
    path.write_bytes(gzip.compress(old))
    turns = read_record(tmp_path, 7)[0].learned.trajectories.histories.words.turns[0]
    np.testing.assert_array_equal(
        turns[0].logprobs, recorded.learned.trajectories.histories.words.turns[0][0].logprobs
    )
    assert [turn.cut for turn in turns[:3]] == [False, True, False], "absent where nothing was cut, as in 0.1"


def test_estimates_contain_the_value_that_is_known() -> None:
    """Two arms, three rounds, mu uniform, pi plays arm 1 with 0.8: V = 3 (0.2 x 0.3 + 0.8 x 0.7) = 1.86."""
    draws, size, target, means = np.random.default_rng(2), 20_000, np.array([0.2, 0.8]), np.array([0.3, 0.7])
    arms = draws.integers(2, size=(size, 3))
    rewards = (draws.random((size, 3)) < means[arms]).astype(float)
    found = estimates(target[arms] / 0.5, rewards, np.arange(size))
    widths = []
    for each in (found.ips, found.snips, found.pdis):
        assert each.low is not None
        assert each.high is not None
        assert each.low < 3 * target @ means < each.high
        widths.append(each.high - each.low)
    assert widths[2] < widths[0]  # what comes later does not add to the variance of what came before
    # rho has mean 1 and second moment (2 x (0.04 + 0.64))^3 = 1.36^3
    assert found.effective_size == pytest.approx(size / 1.36**3, rel=0.05)


def test_ips_and_pdis_are_unbiased() -> None:
    """Over all 16 ways that two rounds of two arms can go, weighted by their probability: exactly V."""
    mu, pi, means = np.array([0.7, 0.3]), np.array([0.1, 0.9]), np.array([0.2, 0.6])
    total = {"ips": 0.0, "pdis": 0.0}
    for a, b, r, s in np.ndindex(2, 2, 2, 2):
        chance = mu[a] * mu[b]
        for arm, reward in ((a, r), (b, s)):
            chance *= means[arm] if reward else 1 - means[arm]
        found = estimates(
            np.array([[pi[a] / mu[a], pi[b] / mu[b]]]), np.array([[r, s]], float), np.zeros(1, int)
        )
        total["ips"] += chance * (found.ips.mean or 0.0)
        total["pdis"] += chance * (found.pdis.mean or 0.0)
    assert list(total.values()) == pytest.approx([2 * pi @ means] * 2)


def test_a_policy_evaluated_on_its_own_rollouts_earned_what_it_earned(tmp_path: Path) -> None:
    policy, trajectories = numeric(tmp_path)
    [again] = through_files([learned_from(trajectories, gradient=True)], tmp_path)
    found = off_policy(again, NumericPolicy(load_network(policy.path)[0]))
    earned = trajectories.histories.rewards.sum(axis=1).mean()
    for each in (found.ips, found.snips, found.pdis):
        assert each.mean == pytest.approx(earned, rel=1e-5)
    assert found.effective_size == pytest.approx(len(GROUP), rel=1e-5)


def test_what_states_no_probabilities_is_not_estimated(tmp_path: Path) -> None:
    _, trajectories = numeric(tmp_path)
    recorded = learned_from(trajectories, gradient=True)
    with pytest.raises(ConfigError, match="states no probabilities"):
        off_policy(recorded, make_baseline("ucb1"))


def test_what_was_kept_is_exported_as_messages_and_as_tokens() -> None:
    """Only rollouts in the loss, with the batch's masks and advantages and the tokens that were sampled."""
    played = in_words()
    for gradient in (False, True):
        record = learned_from(played, gradient=gradient)
        batch, turns = record.learned, played.histories.words.turns
        kept = [row for row in batch.kept.tolist() if row != 6]  # which failed
        told, tokens = (list(training_rows(record, form)) for form in ("messages", "tokens"))
        assert len(told) == len(tokens) == len(kept)
        for row, chat, ids in zip(kept, told, tokens, strict=True):
            mask, advantages = batch.mask[row].astype(int), batch.advantages[row]
            for one in (chat, ids):
                assert (one["problem"], one["rollout"]) == (GROUP[row], row % ROLLOUTS)
                assert one["regret"] == pytest.approx(record.regret[row].sum())
            weights = [
                message.get("weight") for message in chat["messages"] if message["role"] == "assistant"
            ]
            refused = [0] if row == 2 else []
            assert weights == [weight for each in mask.tolist() for weight in (*refused, each)]
            assert chat["advantages"] == advantages.tolist()
            whole = [turns[index][row] for index in range(HORIZON)]
            lengths = [0 if turn.ids is None else len(turn.ids) for turn in whole]
            logprobs = np.concatenate([turn.logprobs for turn in whole if turn.logprobs is not None])
            in_loss = np.repeat(mask, lengths) * np.isfinite(logprobs)
            assert len(ids["input_ids"]) == len(ids["logprobs"]) == sum(lengths)
            assert ids["loss_mask"] == in_loss.tolist()
            assert ids["advantages"] == (in_loss * np.repeat(advantages, lengths)).tolist()
            assert [value is None for value in ids["logprobs"]] == np.isnan(logprobs).tolist()


def test_a_run_s_training_data_is_written_once_and_whole(tmp_path: Path) -> None:
    run_dir = write_words(write_run(tmp_path / "run", last=2))
    (run_dir / "suite.yaml").write_text("{name: words/bandits}")
    target = tmp_path / "data.jsonl"
    assert export_training_data(run_dir, "messages", target) == 2 * export_training_data(
        run_dir, "messages", tmp_path / "one.jsonl", [2]
    )
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert {row["iteration"] for row in rows} == {1, 2}
    assert all(row["messages"][0]["role"] == "user" for row in rows)
    for error, arguments, said in (
        (RunDirectoryError, ("messages", target), "exists already"),
        (ConfigError, ("tokens", tmp_path / "tokens.jsonl"), "no tokens"),
        (ConfigError, ("messages", tmp_path / "late.jsonl", [3]), "iteration 3"),
        (UnknownNameError, ("message", tmp_path / "x.jsonl"), "messages"),
    ):
        with pytest.raises(error, match=said):
            export_training_data(run_dir, *arguments)  # type: ignore[arg-type]
    assert {path.name for path in tmp_path.iterdir()} == {"run", "data.jsonl", "one.jsonl"}
