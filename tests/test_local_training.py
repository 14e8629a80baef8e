"""The trainer of language models: its loss by hand, its layout against plain passes, what it writes."""

import json
import math
import os
import random
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import psutil
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    TokenizersBackend,
)

from batches import batch_of
from rmft.compute import RayCompute
from rmft.errors import ConfigError, RunDirectoryError, TrainingError, UnknownNameError
from rmft.generators.loading import HeldModel, load_model
from rmft.policies.checkpoint import adapter_in, model_of
from rmft.policies.config import LocalConfig
from rmft.training.config import CrossEntropy, LocalTraining, PolicyGradient
from rmft.training.export import compare, export_policy
from rmft.training.local import LocalTrainer, new_policy, packed_loss
from rmft.training.low_rank import fuse
from rmft.training.numeric import batch_loss
from rmft.training.packing import ATTENTION, pack
from rmft.training.processes import Launch
from rmft.training.tokens import TokenSequence, batches, passes, token_sequences
from rmft.types import (
    Decisions,
    FloatArray,
    Histories,
    PolicyRef,
    RewardTable,
    Rules,
    TrainingBatch,
    TrainingStep,
    Trajectories,
    Turn,
    Words,
)

VOCABULARY, LEGAL = 40, np.array([30, 31, 32])
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,  # far from uniform
}
KINDS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SHAPE)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(
            **SHAPE, head_dim=16, attn_logit_softcapping=2.0, final_logit_softcapping=5.0, sliding_window=9
        )
    ),
}


def make(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return KINDS[kind]()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make("llama").save_pretrained(folder)
    core = Tokenizer(WordLevel({f"w{index}": index for index in range(VOCABULARY)}, unk_token="w0"))
    TokenizersBackend(tokenizer_object=core, pad_token="w0", eos_token="w2").save_pretrained(folder)
    return folder


@pytest.fixture
def config(base: Path) -> LocalConfig:
    return LocalConfig.model_validate({"model": str(base), "lora": {"rank": 4, "alpha": 8}, "device": "cpu"})


@pytest.fixture
def start(config: LocalConfig, tmp_path: Path) -> PolicyRef:
    return begin(config, tmp_path / "start")


def begin(config: LocalConfig, folder: Path) -> PolicyRef:
    folder.mkdir()
    return new_policy(config, 0, folder)


def play(
    problems: int = 2, rollouts: int = 3, horizon: int = 3, reasoning: int = 2, words: int = 4, seed: int = 0
) -> Trajectories:
    """Made up: each round some words, up to `reasoning` sampled tokens, one forced, and one of LEGAL."""
    generator = np.random.default_rng(seed)
    size = problems * rollouts
    histories = Histories(
        Rules("bandit", horizon, 3), size, Words("train", np.repeat(np.arange(problems), rollouts))
    )
    openings = [generator.integers(3, 30, 8 + problem) for problem in range(problems)]
    for index in range(horizon):
        arms = generator.integers(3, size=size)
        drawn_from = generator.dirichlet(np.ones(3), size=size)
        turns = []
        for row in range(size):
            told = generator.integers(3, 30, words) if index else openings[row // rollouts]
            thought = generator.integers(3, 30, generator.integers(reasoning + 1))
            turns.append(turn(told, thought, [29] * bool(reasoning), LEGAL[arms[row]]))
        histories.append(Decisions(arms, drawn_from, tuple(turns)), generator.random(size))
    table = RewardTable(np.zeros((size, horizon, 3)), np.zeros((size, horizon, 3)))
    return Trajectories(histories, table)


def turn(told: object, thought: object, forced: list[int], decision: int) -> Turn:
    told, thought = np.asarray(told, dtype=np.int64), np.asarray(thought, dtype=np.int64)
    ids = np.concatenate([told, thought, np.array(forced, dtype=np.int64), [decision]])
    logs = np.full(len(ids), np.nan)
    logs[len(told) : len(told) + len(thought)] = -1.0
    logs[-1] = -1.0
    return Turn("", "", ids, logs, LEGAL)


def train(
    policy: PolicyRef,
    batches: list[TrainingBatch],
    target: Path,
    config: LocalConfig,
    kl_coef: float = 0,
    on_ray: Launch | None = None,
    **settings: object,
) -> tuple[PolicyRef, dict[str, float]]:
    """Train, with a KL term where kl_coef is above 0."""
    target.mkdir()
    objective = {"kind": "policy_gradient", "kl_coef": kl_coef} if kl_coef else {}
    training = {"warmup": 0, "learning_rate": 0.01, "batch_size": 16, "objective": objective, **settings}
    training |= {"launcher": "spawn" if on_ray is None else "ray"}
    trainer = LocalTrainer(LocalTraining.model_validate(training), config, on_ray=on_ray)
    return trainer.train(policy, batches, target, TrainingStep(1, 3, 0.0))


def test_a_model_that_is_held_trains_as_one_that_is_loaded(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """Two trainings in a row give the same bytes, and leave the model as it was."""
    held = HeldModel(config.model, "float32", "cpu")
    before = {name: weight.clone() for name, weight in held.model.state_dict().items()}
    played = play()
    batches = [batch_of(played, np.ones((len(played), 3)), np.ones((len(played), 3), dtype=bool))]
    loads, holds = start, start
    for number in range(2):
        loads, figures = train(loads, batches, tmp_path / f"loaded-{number}", config)
        trainer = LocalTrainer(LocalTraining(warmup=0, learning_rate=0.01, batch_size=16), config, held)
        (target := tmp_path / f"held-{number}").mkdir()
        held.adapt(adapter_in(holds.path))
        holds, same = trainer.train(holds, batches, target, TrainingStep(1, 3, 0.0))
        assert figures == same
        for name in ("adapter_model.safetensors", "optimizer.safetensors"):
            assert (loads.path / name).read_bytes() == (holds.path / name).read_bytes()
        assert all(torch.equal(held.model.state_dict()[name], before[name]) for name in before)
        assert not held.model.training
    held.adapt(holds.path)
    expected = loaded(holds, config).state_dict()
    assert all(torch.equal(held.model.state_dict()[name], expected[name]) for name in expected)


def loaded(policy: PolicyRef, config: LocalConfig) -> PreTrainedModel:
    model, _ = load_model(model_of(policy.path, config), "float32", "cpu", adapter=adapter_in(policy.path))
    return model


def log_likelihood(model: PreTrainedModel, trajectories: Trajectories, row: int) -> list[list[float]]:
    """Of every sampled token over the whole vocabulary, by round, from one plain pass."""
    turns = [each[row] for each in trajectories.histories.words.turns]
    ids = np.concatenate([each.ids for each in turns])
    logs = model(torch.from_numpy(ids)[None]).logits[0].double().log_softmax(-1).detach().numpy()
    found, place = [], 0
    for each in turns:
        sampled = place + np.flatnonzero(np.isfinite(each.logprobs))
        found.append(logs[sampled - 1, ids[sampled]].tolist())
        place += len(each.ids)
    return found


def log_mass(model: PreTrainedModel, trajectories: Trajectories, row: int) -> list[float]:
    """Log of the probability of all legal answers together at each round's decision."""
    turns = [each[row] for each in trajectories.histories.words.turns]
    ids = np.concatenate([each.ids for each in turns])
    logs = model(torch.from_numpy(ids)[None]).logits[0].double().log_softmax(-1)
    ends = np.cumsum([len(each.ids) for each in turns]) - 2
    return [float(logs[end, LEGAL].logsumexp(-1)) for end in ends]


def decisions(policy: PolicyRef, config: LocalConfig, trajectories: Trajectories) -> FloatArray:
    """(B, T): the log-likelihood of each decision."""
    model = loaded(policy, config)
    rows = [log_likelihood(model, trajectories, row) for row in range(len(trajectories))]
    return np.array([[of_round[-1] for of_round in row] for row in rows])


def global_generators() -> list[object]:
    numpy = np.random.get_state()[1]  # noqa: NPY002
    return [random.getstate(), numpy.tolist(), torch.get_rng_state().tolist()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_loss_is_the_weighted_mean_over_sampled_tokens(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """Four rounds of one trajectory have advantages 2, 0, -1 and 1, and the mask leaves out the second.

    Reasoning counts as much as the decision, which is compared with the legal answers; how likely these are
    together is a term of its own, whatever the advantage.
    """
    trajectories = play(1, 1, horizon=4)
    advantages = np.array([[2.0, 0.0, -1.0, 1.0]])
    model = loaded(start, config)
    logs, masses = log_likelihood(model, trajectories, 0), log_mass(model, trajectories, 0)
    scores = [
        advantage * one
        for advantage, of_round in zip(advantages[0], logs, strict=True)
        for one in of_round
        if advantage
    ]
    legality = sum((a - 0.3) * mass for a, mass in zip(advantages[0], masses, strict=True) if a)
    expected = (legality - sum(scores)) / len(scores)
    batch = batch_of(trajectories, advantages)
    figures = train(start, [batch], tmp_path / "next", config, legality_coef=0.3)[1]
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)
    assert figures["steps"] == 1
    # With advantages 1 and legality 1 it is plain cross-entropy on all that was sampled.
    plain = batch_of(trajectories, np.ones((1, 4)))
    figures = train(start, [plain], tmp_path / "plain", config)[1]
    assert figures["loss"] == pytest.approx(-np.mean([one for each in logs for one in each]), rel=1e-5)


def test_rounds_count_as_much_whatever_their_reasoning(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """By the mean over their reasoning, none to two tokens here, and their decision; N counts rounds."""
    trajectories, advantages = play(1, 1, horizon=4), np.array([[2.0, 0.0, -1.0, 1.0]])
    model = loaded(start, config)
    logs, masses = log_likelihood(model, trajectories, 0), log_mass(model, trajectories, 0)
    assert len({len(of_round) for of_round in logs}) > 1
    expected = 0.0
    for advantage, of_round, mass in zip(advantages[0], logs, masses, strict=True):
        if advantage:
            reasoning = np.mean(of_round[:-1]) if of_round[:-1] else 0.0
            expected -= advantage * (reasoning + of_round[-1] - mass) + 0.3 * mass
    batch = batch_of(trajectories, advantages)
    settings = {"legality_coef": 0.3, "loss_aggregation": "round_mean"}
    figures = train(start, [batch], tmp_path / "next", config, **settings)[1]
    assert figures["loss"] == pytest.approx(expected / 3, rel=1e-5)


@pytest.mark.parametrize("aggregation", ["token_mean", "round_mean"])
def test_reasoning_that_was_cut_can_be_left_out_of_the_loss(aggregation: str) -> None:
    """As if none of its tokens had been sampled; the decision stays."""
    trajectories = play(1, 4, horizon=3)
    turns = trajectories.histories.words.turns
    turns[1] = tuple(replace(each, cut=True) for each in turns[1])
    training = LocalTraining(loss_aggregation=aggregation, mask_truncated_completions=True)  # type: ignore[arg-type]
    masked = token_sequences(batch_of(trajectories, np.ones((4, 3))), training)
    everything = token_sequences(batch_of(trajectories, np.ones((4, 3))))
    for each in turns[1]:
        each.logprobs[:-1] = np.nan
    expected = token_sequences(
        batch_of(trajectories, np.ones((4, 3))), LocalTraining(loss_aggregation=aggregation)
    )  # type: ignore[arg-type]
    assert sum(len(one.targets) for one in masked[0]) < sum(len(one.targets) for one in everything[0])
    for one, other in zip(masked[0], expected[0], strict=True):
        assert one.norm == other.norm
        np.testing.assert_array_equal(one.token_positions, other.token_positions)
        np.testing.assert_array_equal(one.token_shares, other.token_shares)
        np.testing.assert_array_equal(one.decision_positions, other.decision_positions)


def test_a_decision_without_advantage_counts_where_the_mask_has_it(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    trajectories = play(1, 1, horizon=2, reasoning=0)
    advantages = np.array([[0.0, 3.0]])
    alone, among = (
        train(start, [batch_of(trajectories, advantages, mask)], tmp_path / name, config, legality_coef=0)[1]
        for name, mask in (("alone", None), ("among", np.ones((1, 2), dtype=bool)))
    )
    assert among["loss"] == pytest.approx(alone["loss"] / 2, rel=1e-5)
    assert among["gradient_norm"] == pytest.approx(alone["gradient_norm"] / 2, rel=1e-3)


def scaled_logs(model: PreTrainedModel, turns: list[Turn], temperature: float) -> FloatArray:
    """Log of the probabilities over the vocabulary after each token of one trajectory."""
    ids = torch.from_numpy(np.concatenate([turn.ids for turn in turns]))[None]
    return np.asarray((model(ids).logits[0].double() / temperature).log_softmax(-1).detach().numpy())


def test_the_kl_term_is_that_to_what_was_drawn_from(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """In every decision of the mask, those of advantage 0 included: sum mu (log mu - log pi), both at T."""
    trajectories = play(1, 1, horizon=2, reasoning=0)
    turns = [each[0] for each in trajectories.histories.words.turns]
    logs = scaled_logs(loaded(start, config), turns, 1.5)
    at = [len(turns[0].ids) - 2, len(turns[0].ids) + len(turns[1].ids) - 2]
    among = [logs[place, LEGAL] - np.logaddexp.reduce(logs[place, LEGAL]) for place in at]
    drawn_from = trajectories.histories.probabilities
    assert drawn_from is not None
    kl = sum(drawn_from[0, t] @ (np.log(drawn_from[0, t]) - among[t]) for t in range(2))
    decided = among[1][trajectories.histories.arms[0, 1]]
    batch = batch_of(trajectories, np.array([[0.0, 3.0]]), np.ones((1, 2), dtype=bool), temperature=1.5)
    figures = train(start, [batch], tmp_path / "next", config, kl_coef=0.5, legality_coef=0)[1]
    assert figures["kl"] == pytest.approx(kl / 2, rel=1e-5)
    assert figures["loss"] == pytest.approx((-3 * decided + 0.5 * kl) / 2, rel=1e-5)


@pytest.mark.parametrize("kl_coef", [0.0, 0.5])
def test_action_targets_stand_in_for_the_decisions(
    kl_coef: float, start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """Each legal answer by its arm's target; the tokens of reasoning by the round's advantage."""
    trajectories = play(1, 1, horizon=1)
    targets, advantages = np.array([[[1.0, -0.25, -0.5]]]), np.array([[2.0]])
    turn = trajectories.histories.words.turns[0][0]
    logs = scaled_logs(loaded(start, config), [turn], 1.0)
    among = logs[-2, LEGAL] - np.logaddexp.reduce(logs[-2, LEGAL])
    drawn_from = trajectories.histories.probabilities
    assert drawn_from is not None
    [own] = log_likelihood(loaded(start, config), trajectories, 0)
    sampled = np.flatnonzero(np.isfinite(turn.logprobs))[:-1]
    kl = drawn_from[0, 0] @ (np.log(drawn_from[0, 0]) - among)
    kl += sum(turn.logprobs[sampled]) - sum(own[:-1])
    expected = (-2 * sum(own[:-1]) - targets[0, 0] @ among + kl_coef * kl) / len(own)
    batch = batch_of(trajectories, advantages, action_targets=targets)
    figures = train(start, [batch], tmp_path / "next", config, kl_coef=kl_coef, legality_coef=0)[1]
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)


def rolled_out(model: PreTrainedModel, temperature: float, size: int = 8) -> Trajectories:
    """One decision each, without reasoning, drawn from the model itself at that temperature."""
    generator = np.random.default_rng(1)
    openings = [generator.integers(3, 30, 8) for _ in range(size)]
    turns = [turn(opening, [], [], LEGAL[0]) for opening in openings]
    logs = np.stack([scaled_logs(model, [each], temperature)[-2, LEGAL] for each in turns])
    drawn_from = np.exp(logs - np.logaddexp.reduce(logs, axis=1, keepdims=True))
    arms = np.array([generator.choice(3, p=each) for each in drawn_from])
    spoken = tuple(turn(told, [], [], LEGAL[arm]) for told, arm in zip(openings, arms, strict=True))
    histories = Histories(Rules("bandit", 1, 3), size, Words("train", np.arange(size)))
    histories.append(Decisions(arms, drawn_from, spoken), np.zeros(size))
    zeros = np.zeros((size, 1, 3))
    return Trajectories(histories, RewardTable(zeros, zeros))


def entropy(policy: PolicyRef, config: LocalConfig, trajectories: Trajectories) -> float:
    """Mean entropy at temperature 1, in nats, among the legal answers."""
    model, total = loaded(policy, config), 0.0
    for spoken in trajectories.histories.words.turns[0]:
        logs = scaled_logs(model, [spoken], 1.0)[-2, LEGAL]
        logs = logs - np.logaddexp.reduce(logs)
        total -= float(np.exp(logs) @ logs)
    return total / len(trajectories)


def test_the_kl_term_alone_leaves_the_policy_where_it_is(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """Rollouts at temperature 1.5 are no reason to become flatter; taken for those of 1 they are.

    Small steps: Adam makes whole ones of a gradient that is rounding alone.
    """
    trajectories = rolled_out(loaded(start, config), 1.5)
    nothing, whole = np.zeros((8, 1)), np.ones((8, 1), dtype=bool)
    before = entropy(start, config, trajectories)
    assert before < 0.9
    found = {}
    for temperature in (1.5, 1.0):
        batch = batch_of(trajectories, nothing, whole, temperature=temperature)
        target = tmp_path / str(temperature)
        steps = {"epochs": 60, "learning_rate": 0.002}
        trained, figures = train(start, [batch], target, config, 1, legality_coef=0, **steps)
        found[temperature] = figures["kl"], entropy(trained, config, trajectories)
    assert found[1.5] == pytest.approx((0, before), abs=1e-3)
    assert found[1.0][0] > 10 * found[1.5][0]
    assert found[1.0][1] > before + 0.1


def test_at_the_policy_rolled_out_the_kl_term_has_no_gradient(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """The KL term changes neither loss nor gradient there; against another's probabilities it does."""
    own = rolled_out(loaded(start, config), 1.5)
    advantages = np.random.default_rng(0).normal(size=(8, 1))
    batch = batch_of(own, advantages, temperature=1.5)
    alone = train(start, [batch], tmp_path / "alone", config, legality_coef=0)[1]
    held = train(start, [batch], tmp_path / "held", config, kl_coef=5, legality_coef=0)[1]
    assert held["kl"] == pytest.approx(0, abs=1e-5)
    assert held["loss"] == pytest.approx(alone["loss"], abs=1e-4)
    assert held["gradient_norm"] == pytest.approx(alone["gradient_norm"], rel=1e-3)
    assert own.histories.probabilities is not None
    others = Histories(own.rules, 8, Words("train", np.arange(8)))
    others.append(
        Decisions(own.histories.arms[:, 0], np.roll(own.histories.probabilities[:, 0], 1, 1),
                  own.histories.words.turns[0]),
        np.zeros(8),
    )  # fmt: skip
    away = batch_of(Trajectories(others, own.table), advantages, temperature=1.5)
    pulled = train(start, [away], tmp_path / "pulled", config, kl_coef=5, legality_coef=0)[1]
    assert pulled["kl"] > 0.1
    assert pulled["gradient_norm"] > 2 * alone["gradient_norm"]


@pytest.mark.parametrize("temperature", [1.0, 1.5])
@pytest.mark.parametrize("kl_coef", [0.0, 0.7])
@pytest.mark.parametrize("all_actions", [False, True])
def test_numbers_and_words_have_one_objective(temperature: float, kl_coef: float, all_actions: bool) -> None:
    """On equal logits the loss of the numeric trainer and that of the language model's, and the gradients
    with respect to them, are equal; tokens that are no legal answer get none."""
    generator = np.random.default_rng(0)
    trajectories = play(5, 1, horizon=3, reasoning=0)
    mask = generator.random((5, 3)) < 0.7
    targets = generator.normal(size=(5, 3, 3)) if all_actions else None
    batch = batch_of(trajectories, generator.normal(size=(5, 3)), mask, targets, temperature)
    assert 0 < mask.sum() < 15

    objective = PolicyGradient(kl_coef=kl_coef) if kl_coef else CrossEntropy()
    numeric = torch.from_numpy(generator.normal(size=(5, 3, 3)) * 2).requires_grad_()
    loss, kl = batch_loss(numeric, batch, objective)
    torch.autograd.backward(loss)

    packed = pack(token_sequences(batch), torch.device("cpu"))
    assert int(packed.predicting.sum()) == mask.sum(), "no two decisions follow the same tokens"
    rows = torch.from_numpy(generator.normal(size=(int(mask.sum()), VOCABULARY)))
    rows[packed.decision_at[:, None], torch.from_numpy(LEGAL)] = numeric.detach()[torch.from_numpy(mask)]
    rows.requires_grad_()
    spoken, spoken_kl = packed_loss(rows, packed, objective, legality_coef=0.0)
    torch.autograd.backward(spoken)

    assert spoken.item() == pytest.approx(loss.item(), rel=1e-6)
    assert spoken_kl.item() == pytest.approx(kl.item(), rel=1e-5, abs=1e-6)
    assert rows.grad is not None
    assert numeric.grad is not None
    at_legal = rows.grad[packed.decision_at][:, LEGAL]
    torch.testing.assert_close(at_legal, numeric.grad[torch.from_numpy(mask)], rtol=1e-5, atol=1e-6)
    elsewhere = rows.grad.clone()
    elsewhere[:, LEGAL] = 0
    torch.testing.assert_close(elsewhere, torch.zeros_like(elsewhere), rtol=0, atol=1e-6)
    assert not numeric.grad[~torch.from_numpy(mask)].any()


def test_ratios_are_clipped_and_the_start_is_held_to_by_tokens_and_by_decisions(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """PPO's clip, and KL(pi || ref) to another policy than that which was rolled out, term by term."""
    trajectories = play(1, 2, horizon=2)
    advantages = np.array([[2.0, -1.0], [0.5, -3.0]])
    batch = batch_of(trajectories, advantages)
    other, _ = train(start, [batch], tmp_path / "other", config, legality_coef=0, learning_rate=0.05)
    now, then = (loaded(each, config) for each in (start, other))
    total, count = 0.0, 0
    for row in range(2):
        own, held_to = (log_likelihood(model, trajectories, row) for model in (now, then))
        for index in range(2):
            spoken, advantage = trajectories.histories.words.turns[index][row], advantages[row, index]
            drawn = spoken.logprobs[np.isfinite(spoken.logprobs)][:-1]
            for logprob, mu, ref in zip(own[index], drawn, held_to[index], strict=False):
                x = math.exp(ref - logprob)
                total += clipped(math.exp(logprob - mu), advantage) + 0.3 * (x - 1 - math.log(x))
            count += len(own[index])
            before = [turns[row] for turns in trajectories.histories.words.turns[: index + 1]]
            pi, ref_pi = (legal_probabilities(model, before) for model in (now, then))
            assert trajectories.histories.probabilities is not None
            mu_of = trajectories.histories.probabilities[row, index]
            arm = trajectories.histories.arms[row, index]
            total += clipped(pi[arm] / mu_of[arm], advantage) + 0.3 * float(pi @ np.log(pi / ref_pi))
    (tmp_path / "next").mkdir()
    settings = {"objective": {"kind": "ppo_clip", "clip_range": 0.1, "kl_coef": 0.3}, "legality_coef": 0}
    trainer = LocalTrainer(LocalTraining.model_validate({"warmup": 0, "batch_size": 2, **settings}), config)
    step = TrainingStep(1, 3, 0.0, other)
    _, figures = trainer.train(start, [batch], tmp_path / "next", step)
    assert figures["loss"] == pytest.approx(total / count, rel=1e-4)


def clipped(rho: float, advantage: float) -> float:
    return -min(rho * advantage, min(max(rho, 0.9), 1.1) * advantage)


def legal_probabilities(model: PreTrainedModel, turns: list[Turn]) -> FloatArray:
    """(3,) of the last turn's answers among each other, at temperature 1."""
    logs = scaled_logs(model, turns, 1.0)[sum(len(each.ids) for each in turns) - 2, LEGAL]
    return np.asarray(np.exp(logs - np.logaddexp.reduce(logs)))


def test_a_pair_of_trajectories_is_told_apart_by_its_log_ratios(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    """DPO: -log sigmoid(beta [log ratio of the chosen - that of the rejected]), over all that was sampled."""
    trajectories = play(2, 2, horizon=2)
    signs = np.array([[1.0, 1.0], [-1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]])
    margins = np.zeros(2)
    model = loaded(start, config)
    for row in range(4):
        own = log_likelihood(model, trajectories, row)
        for index in range(2):
            spoken = trajectories.histories.words.turns[index][row]
            drawn = spoken.logprobs[np.isfinite(spoken.logprobs)][:-1]
            before = [turns[row] for turns in trajectories.histories.words.turns[: index + 1]]
            arm, stated = trajectories.histories.arms[row, index], trajectories.histories.probabilities
            assert stated is not None
            decided = math.log(legal_probabilities(model, before)[arm] / stated[row, index, arm])
            margins[row // 2] += signs[row, 0] * (sum(own[index][:-1]) - drawn.sum() + decided)
    expected = np.mean([math.log1p(math.exp(-0.4 * margin)) for margin in margins])
    batch = replace(batch_of(trajectories, signs), group=np.array([0, 0, 1, 1]))
    settings = {"objective": {"kind": "dpo", "beta": 0.4}, "legality_coef": 0, "tokens_at_once": 10}
    trained, figures = train(start, [batch], tmp_path / "next", config, **settings)
    assert figures["loss"] == pytest.approx(expected, rel=1e-4)
    gained = decisions(trained, config, trajectories) - decisions(start, config, trajectories)
    assert (gained * signs).sum() > 0
    whole = train(start, [batch], tmp_path / "whole", config, **settings | {"tokens_at_once": 4096})
    assert content(whole[0].path) == content(trained.path)


def plain_loss(
    logits: torch.Tensor, one: TokenSequence, kl_coef: float, legality_coef: float
) -> torch.Tensor:
    """The objective of one trajectory from the logits of a plain pass over its tokens, term by term."""
    logs = (logits / one.temperature).log_softmax(-1)
    total = torch.zeros(())
    scored = one.token_advantages, one.token_shares, one.token_logprobs
    free = zip(one.token_positions, one.targets, *scored, strict=True)
    for place, token, advantage, share, logprob in free:
        score = -advantage * logs[place, token] + kl_coef * (logprob - logs[place, token])
        total = total + share * score
    assert one.behaviour is not None
    for place, legal, weights, drawn in zip(
        one.decision_positions, one.legal, one.weights, one.behaviour, strict=True
    ):
        legality = logs[place, legal].logsumexp(0)
        for token, weight, chance in zip(legal, weights, drawn, strict=True):
            among = logs[place, token] - legality
            total = total - weight * among + kl_coef * chance * (math.log(chance) - among)
        total = total - legality_coef * legality
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_pass_has_the_loss_and_gradients_of_plain_ones(kind: str) -> None:
    """Rollouts of a problem share their opening, and here also what follows while it is the same."""
    trajectories = play(3, 4, horizon=3, words=1)
    advantages = np.random.default_rng(1).normal(size=(12, 3))
    batch = batch_of(trajectories, advantages, temperature=1.3)
    groups = token_sequences(batch, LocalTraining(loss_aggregation="round_mean"))
    model = make(kind)
    plain = 0.0
    for one in (one for group in groups for one in group):
        piece = plain_loss(model(torch.from_numpy(one.ids)[None]).logits[0], one, 0.7, 0.2)
        torch.autograd.backward(piece)
        plain += piece.item()
    expected = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    model.set_attn_implementation(ATTENTION)
    packed = pack(groups, torch.device("cpu"))
    assert packed.ids.numel() < sum(len(one.ids) for group in groups for one in group) - 9 * 8
    logits = model(
        input_ids=packed.ids,
        position_ids=packed.position_ids,
        rmft_groups=packed.groups,
        logits_to_keep=packed.predicting,
        use_cache=False,
    ).logits
    loss, _ = packed_loss(logits.flatten(0, -2), packed, PolicyGradient(kl_coef=0.7), 0.2)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(plain, rel=1e-5)
    scale = max(float(each.abs().max()) for each in expected.values())
    for name, each in model.named_parameters():
        torch.testing.assert_close(each.grad, expected[name], rtol=1e-5, atol=1e-5 * scale)


def test_low_rank_layers_compute_what_peft_does() -> None:
    model = make("llama").requires_grad_(False)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(0)  # for the adapters, which are drawn
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=False)
        )
    ids = torch.arange(3, 33).view(2, 15)

    def gradients() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        adapted.zero_grad()
        logits = adapted(ids).logits
        torch.autograd.backward(logits.square().sum())
        return logits, {n: p.grad.clone() for n, p in adapted.named_parameters() if p.requires_grad}

    logits, expected = gradients()
    assert fuse(adapted) == 3 * 7
    found, of_fused = gradients()
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5 * float(logits.detach().abs().max()))
    for name, each in expected.items():
        torch.testing.assert_close(of_fused[name], each, rtol=1e-4, atol=1e-5 * float(each.abs().max()))


@pytest.mark.parametrize(
    "settings", [{"tokens_at_once": 1}, {"tokens_at_once": 60}, {"gradient_checkpointing": True}]
)
def test_passes_and_checkpointing_change_nothing_but_rounding(
    settings: dict[str, float], start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    batch = batch_of(play(3, 4), np.random.default_rng(1).normal(size=(12, 3)))
    whole, one = train(start, [batch], tmp_path / "one", config, kl_coef=1, batch_size=6)
    split, other = train(start, [batch], tmp_path / "other", config, kl_coef=1, batch_size=6, **settings)
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
    assert one["steps"] == other["steps"] == 2
    moved = np.abs(decisions(whole, config, play()) - decisions(split, config, play())).max()
    assert moved < 1e-3


def test_what_is_imitated_becomes_likelier_and_what_is_disliked_less(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    trajectories = play(2, 4)
    before = decisions(start, config, trajectories)
    weights = np.zeros((8, 3))
    weights[0], weights[5] = 1.0, -1.0
    trained, _ = train(start, [batch_of(trajectories, weights)], tmp_path / "next", config, epochs=4)
    moved = decisions(trained, config, trajectories) - before
    assert moved[0].mean() > 0.1
    assert moved[5].mean() < -0.1


def test_a_trajectory_outside_the_mask_changes_nothing(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    trajectories = play(2, 4)
    weights = np.zeros((8, 3))
    weights[2:4] = 1.0
    with_rest, _ = train(start, [batch_of(trajectories, weights)], tmp_path / "a", config, kl_coef=1)
    alone = batch_of(trajectories.rows(slice(2, 4)), weights[2:4])
    assert content(train(start, [alone], tmp_path / "b", config, kl_coef=1)[0].path) == content(
        with_rest.path
    )


@pytest.mark.parametrize(
    "lora", [{"rank": 2, "dropout": 0.2, "num_layers": 1, "targets": ["q_proj", "v_proj"]}, None]
)
def test_training_goes_on_where_it_stopped_and_repeats_itself(
    lora: dict[str, object] | None, base: Path, tmp_path: Path
) -> None:
    """Weights and optimizer state travel with the policy; no global generator is touched."""
    config = LocalConfig.model_validate({"model": str(base), "lora": lora, "device": "cpu"})
    batch = batch_of(play(), np.ones((6, 3)))
    generators = global_generators()
    first, _ = train(begin(config, tmp_path / "start"), [batch], tmp_path / "first", config)
    second, _ = train(first, [batch], tmp_path / "second", config)
    assert generators == global_generators()
    again, _ = train(first, [batch], tmp_path / "again", config)
    assert content(second.path) == content(again.path)
    likelihoods = [decisions(each, config, batch.trajectories).mean() for each in (first, second)]
    assert likelihoods[1] > likelihoods[0]
    shutil.copyfile(tmp_path / "start" / "optimizer.safetensors", first.path / "optimizer.safetensors")
    forgetful, _ = train(first, [batch], tmp_path / "forgetful", config)
    assert content(second.path) != content(forgetful.path)
    (first.path / "optimizer.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match=r"optimizer\.safetensors"):
        train(first, [batch], tmp_path / "without", config)


def test_adapters_are_where_they_are_asked_for(base: Path, tmp_path: Path) -> None:
    config = LocalConfig.model_validate({"model": str(base), "lora": {"rank": 2, "num_layers": 2}})
    trained, _ = train(
        begin(config, tmp_path / "start"), [batch_of(play(), np.ones((6, 3)))], tmp_path / "a", config
    )
    settings = json.loads((trained.path / "adapter_config.json").read_text())
    assert settings["layers_to_transform"] == [1, 2]
    assert settings["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    wrong = [
        ({"targets": ["q_porj"]}, UnknownNameError, "q_proj"),
        ({"num_layers": 4}, ConfigError, "at most 3"),
    ]
    for number, (lora, error, words) in enumerate(wrong):
        other = LocalConfig.model_validate({"model": str(base), "lora": lora})
        with pytest.raises(error, match=words):
            train(begin(other, tmp_path / f"{number}"), [], tmp_path / f"next{number}", other)


def test_nothing_in_the_mask_is_no_step(start: PolicyRef, config: LocalConfig, tmp_path: Path) -> None:
    trained, figures = train(start, [batch_of(play(), np.zeros((6, 3)))], tmp_path / "next", config)
    assert (figures["steps"], figures["loss"], figures["tokens"]) == (0.0, 0.0, 0.0)
    assert np.array_equal(decisions(trained, config, play()), decisions(start, config, play()))


@pytest.mark.parametrize("weight", [np.inf, np.nan])
def test_a_loss_that_is_not_finite_stops_training(
    weight: float, start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="diverged"):
        train(start, [batch_of(play(), np.full((6, 3), weight))], tmp_path / "next", config)


def test_what_was_not_sampled_here_cannot_be_trained_on(
    start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    trajectories = play()
    trajectories.histories.words.turns[1] = tuple(Turn("told", "said") for _ in range(6))
    with pytest.raises(TrainingError, match="no token ids"):
        train(start, [batch_of(trajectories, np.ones((6, 3)))], tmp_path / "next", config)


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_adapter_is_said_so(
    damage: str, start: PolicyRef, config: LocalConfig, tmp_path: Path
) -> None:
    batch = batch_of(play(), np.ones((6, 3)))
    first, _ = train(start, [batch], tmp_path / "first", config)
    path = first.path / "adapter_model.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "gone":
        path.unlink()
    else:
        config = LocalConfig.model_validate({**config.model_dump(), "lora": {"rank": 3}})
    with pytest.raises(RunDirectoryError, match=r"adapter_model\.safetensors"):
        train(first, [batch], tmp_path / "next", config)


@pytest.mark.parametrize("lora", [{"rank": 2}, None])
def test_half_precision_trains_too(lora: dict[str, int] | None, base: Path, tmp_path: Path) -> None:
    config = LocalConfig.model_validate({"model": str(base), "lora": lora, "precision": "bfloat16"})
    batch = batch_of(play(), np.ones((6, 3)))
    start = begin(config, tmp_path / "start")
    trained, figures = train(start, [batch], tmp_path / "next", config, epochs=3)
    assert math.isfinite(figures["loss"])
    likelihoods = [decisions(each, config, batch.trajectories).mean() for each in (start, trained)]
    assert likelihoods[1] > likelihoods[0] + 0.1


def one(ids: list[int], prefix: int) -> TokenSequence:
    """Tokens of which the last is imitated, given one more to be cut off."""
    return TokenSequence.of_tokens(np.array([*ids, 0]), prefix, np.array([len(ids)]))


def test_passes_hold_at_most_what_they_may() -> None:
    """Openings of 4 and 3 tokens, read once each: 4 + 2 + 3 = 9 fit in 9, and the 3 + 5 after them do not."""
    a, b, c = one([1, 2, 3, 4, 5, 6], 4), one([1, 2, 3, 4, 7, 8, 9], 4), one([1, 2, 3, 9, 9, 9, 9, 9], 3)
    assert passes([a, c, b], 9) == [[[a, b]], [[c]]]
    assert passes([a, c, b], 17) == [[[a, b], [c]]]
    assert passes([a, c, b], 8) == [[[a]], [[b]], [[c]]]
    assert passes([a, c, b], 1) == [[[a]], [[b]], [[c]]]
    assert passes([], 9) == []


def test_every_epoch_has_each_trajectory_once() -> None:
    groups = [[one([number, row, 3], 1) for row in range(5)] for number in range(3)]
    found = list(batches(groups, 4, 2, np.random.default_rng(0)))
    assert [len(step) for step in found] == [4, 4, 4, 3] * 2
    epochs = found[:4], found[4:]
    names = [[tuple(each.ids[:2].tolist()) for step in epoch for each in step] for epoch in epochs]
    assert sorted(names[0]) == sorted(names[1]) == [(number, row) for number in range(3) for row in range(5)]
    assert names[0] != names[1]


@pytest.mark.parametrize("merge", [False, True])
def test_an_export_is_loaded_by_transformers_and_peft_as_it_is(
    merge: bool, start: PolicyRef, config: LocalConfig, base: Path, tmp_path: Path
) -> None:
    trained, _ = train(start, [batch_of(play(), np.ones((6, 3)))], tmp_path / "next", config)
    interval = {"mean": 1.234, "low": 1.0, "high": 1.5}
    about = {
        "run": "small",
        "suite": "smoke",
        "iteration": 3,
        "validation": {"before": {"regret": interval}, "after": {"regret": interval}},
        "evaluation": None,
        "rounds": [{"ids": [4, 5, 6, 7], "legal": [7, 8], "system": "s", "prompt": "p", "completion": "c"}],
    }
    target = tmp_path / "exported" / "model"
    export_policy(trained, target, merge, about)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if merge:
            model = AutoModelForCausalLM.from_pretrained(target)
            assert AutoTokenizer.from_pretrained(target)("w7")["input_ids"] == [7]
        else:
            model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), target)
            assert model.peft_config["default"].base_model_name_or_path == base.name
    texts = [path.read_text() for path in target.iterdir() if path.suffix != ".safetensors"]
    assert [str(base.parent) in text for text in texts if '"kind"' not in text] == [False] * (len(texts) - 1)
    ids = torch.arange(3, 30)[None]
    torch.testing.assert_close(
        model.eval()(ids).logits, loaded(trained, config)(ids).logits, rtol=1e-4, atol=1e-4
    )
    card = (target / "README.md").read_text()
    assert "the suite smoke" in card
    assert "| validation | 1.23 [1.00, 1.50] |" in card
    assert "held-out" not in card
    assert "    system: s\n    user: p\n    assistant: c\n" in card
    found = compare(trained, target, about["rounds"])  # type: ignore[arg-type]
    assert found.from_policy < 1e-4 < found.from_base
    (target / ("model.safetensors" if merge else "adapter_model.safetensors")).write_bytes(b"x" * 100)
    with pytest.raises(ConfigError, match="can't be loaded"):
        compare(trained, target, about["rounds"])  # type: ignore[arg-type]
    with pytest.raises(RunDirectoryError, match="exists"):
        export_policy(trained, target, merge, about)
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_a_damaged_adapter_is_not_exported(start: PolicyRef, config: LocalConfig, tmp_path: Path) -> None:
    trained, _ = train(start, [batch_of(play(), np.ones((6, 3)))], tmp_path / "next", config)
    weights = (trained.path / "adapter_model.safetensors").read_bytes()
    for content in (weights[:-10], weights[:-4] + b"\xff\xff\xff\x7f"):  # cut short, and not a number
        (trained.path / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(RunDirectoryError, match="missing or damaged"):
            export_policy(trained, tmp_path / "exported", False, {})
        assert not (tmp_path / "exported").exists()


def test_exporting_what_was_never_trained_is_a_mistake(start: PolicyRef, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--merge"):
        export_policy(start, tmp_path / "exported", False, {})
    export_policy(start, tmp_path / "exported", True, {})
    assert (tmp_path / "exported" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_train_as_one(
    start: PolicyRef, config: LocalConfig, tmp_path: Path, fsdp: bool
) -> None:
    """Steps of 5 and of 1 trajectories, which go on from a state: in each second one a process is idle."""
    settings = {"batch_size": 5, "tokens_at_once": 40}
    batch = batch_of(play(), np.ones((6, 3)))
    alone, together = start, start
    for number in range(2):
        target = tmp_path / f"one-{number}"
        alone, one = train(alone, [batch], target, config, **settings)
        target = tmp_path / f"two-{number}"
        together, two = train(together, [batch], target, config, num_processes=2, fsdp=fsdp, **settings)
    moved = decisions(together, config, play()) - decisions(alone, config, play())
    assert np.abs(moved).max() < 1e-3
    for name in ("loss", "gradient_norm", "steps"):
        assert two[name] == pytest.approx(one[name], rel=1e-3)
    assert two["tokens"] > one["tokens"]  # openings are read in both
    states = [load_file(folder.path / "optimizer.safetensors") for folder in (alone, together)]
    assert {name: each.shape for name, each in states[0].items()} == {
        name: each.shape for name, each in states[1].items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_model_that_is_shared_out_is_written_as_one(
    config: LocalConfig, tmp_path: Path, precision: str, whole: bool
) -> None:
    changed = {"precision": precision} | ({"lora": None} if whole else {})
    config = LocalConfig.model_validate(config.model_dump() | changed)
    begun = begin(config, tmp_path / "begun")
    batch = batch_of(play(), np.ones((6, 3)))
    ddp, _ = train(begun, [batch], tmp_path / "ddp", config, num_processes=2)
    sharded, _ = train(begun, [batch], tmp_path / "fsdp", config, num_processes=2, fsdp=True)
    assert sorted(path.name for path in ddp.path.iterdir()) == sorted(p.name for p in sharded.path.iterdir())
    moved = decisions(sharded, config, play()) - decisions(ddp, config, play())
    assert np.abs(moved).max() < (2e-2 if precision == "bfloat16" and not whole else 1e-3)


@pytest.fixture
def on_ray() -> Iterator[Launch]:
    """What trains on two processors by Ray."""
    pytest.importorskip("ray")
    from rmft.cluster import Cluster

    made = Cluster(RayCompute(address="local", workers=2), lambda: lambda _: None)  # type: ignore[arg-type,return-value]
    yield made.train
    made.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("fsdp", [False, True])
def test_ray_trains_as_processes_of_this_machine_do_whoever_is_killed(
    start: PolicyRef, config: LocalConfig, tmp_path: Path, on_ray: Launch, fsdp: bool
) -> None:
    batch = batch_of(play(), np.ones((6, 3)))
    settings = {"num_processes": 2, "fsdp": fsdp, "epochs": 3}
    here, expected = train(start, [batch], tmp_path / "here", config, **settings)
    killed: list[int] = []

    def kill() -> None:
        """One of Ray Train's processes, as soon as there is one that has this process above it."""
        while not killed:
            for process in psutil.process_iter(["cmdline"]):
                line = " ".join(process.info["cmdline"] or ())
                if "TrainWorker" in line and any(p.pid == os.getpid() for p in process.parents()):
                    process.kill()
                    killed.append(process.pid)
                    return
            time.sleep(0.02)

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    there, found = train(start, [batch], tmp_path / "there", config, on_ray=on_ray, **settings)
    killing.join()
    assert len(killed) == 1
    assert found == pytest.approx(expected, rel=1e-4)
    assert np.abs(decisions(there, config, play()) - decisions(here, config, play())).max() < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_goes_wrong_on_ray_is_told(
    start: PolicyRef, config: LocalConfig, tmp_path: Path, on_ray: Launch
) -> None:
    with pytest.raises(ConfigError, match=r"num_processes 3 asks for 3 CPUs; the Ray cluster .* has 2"):
        train(start, [], tmp_path / "three", config, on_ray=on_ray, num_processes=3)
    batch = batch_of(play(), np.full((6, 3), np.nan))
    with pytest.raises(TrainingError, match="training has diverged"):
        train(start, [batch], tmp_path / "one", config, on_ray=on_ray)
    assert not list((tmp_path / "one").iterdir())


def test_two_processes_diverge_as_one(start: PolicyRef, config: LocalConfig, tmp_path: Path) -> None:
    batch = batch_of(play(), np.full((6, 3), np.nan))
    with pytest.raises(TrainingError, match="diverged"):
        train(start, [batch], tmp_path / "two", config, num_processes=2)


@pytest.mark.slow
def test_smollm2_learns_what_is_imitated(smollm2: Path, tmp_path: Path) -> None:
    config = LocalConfig(model=str(smollm2), device="cpu")
    trajectories = play(1, 4)
    weights = np.zeros((4, 3))
    weights[1] = 1.0
    start = begin(config, tmp_path / "start")
    trained, _ = train(
        start, [batch_of(trajectories, weights)], tmp_path / "next", config, learning_rate=1e-3
    )
    after, before = (decisions(each, config, trajectories)[1] for each in (trained, start))
    assert after.mean() > before.mean() + 0.1
