"""The forecast of a run with a language model in this process, beside what its policy then does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rmft.config import parse_config
from rmft.costs import forecast_local
from rmft.forecast_local import SAMPLED, SEED, played, playing
from rmft.generators.loading import load_model
from rmft.generators.local import LocalEngine
from rmft.policies.config import LocalConfig
from rmft.policies.language import LanguagePolicy
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.training.outline import outline
from rmft.wiring.suites import load_suites

RANK = 3


def test_a_forecast_counts_what_the_policy_reads_writes_and_learns_from(tiny_llama: Path) -> None:
    config = parse_config({
        "suite": "words/bandits",
        "policy": {"kind": "local", "model": str(tiny_llama), "lora": {"rank": RANK}, "device": "cpu"},
        "iterations": 3,
        "rollout": {"num_problems": 4, "num_rollouts": 5},
        "credit": {"kind": "top_k_regret", "num_selected": 2},
        "training": {"epochs": 2},
        "validation": {"every": 2, "num_problems": 6},
    })  # fmt: skip
    assert isinstance(config.policy, LocalConfig)
    suites, model = load_suites(config), outline(config.policy)
    suite = suites["words/bandits"]
    one = played(config.policy, suite, "train", model)
    # the model itself, on the same problems: 8 decisions, each one token
    loaded, tokenizer = load_model(str(tiny_llama), "float32", "cpu")
    player = LanguagePolicy(LocalEngine(loaded, 1.0), tokenizer, config.policy)
    lengths, sampled = [], []
    for batch in suite.draw("train", SAMPLED * 2):
        streams = Streams.at(SEED, [(int(index),) for index in batch.indices])
        found = rollout(player, batch.setting.play(batch.table), streams, batch.words).histories
        turns = [turn for turns in found.words.turns for turn in turns]
        lengths.append(sum(len(turn.ids) for turn in turns if turn.ids is not None))
        sampled.append(
            sum(int(np.isfinite(turn.logprobs).sum()) for turn in turns if turn.logprobs is not None)
        )
    assert (one.decisions, one.written) == (8, sum(sampled) / (SAMPLED * 2)) == (8, 8)
    assert one.opening + one.told + one.written == sum(lengths) / (SAMPLED * 2)
    # its weights, and an adapter of rank 3: 3 x (in + out) of each of 4 + 3 layers in 2 blocks, of width 32
    assert model.weights == sum(weights.numel() for weights in loaded.parameters())
    assert model.trained == 2 * 7 * RANK * (32 + 32)
    assert model.adapted == 2 * 7 * 32 * 32
    assert model.per_token == model.weights - 49152 * 32, "the embedding, which is not the head"
    # 3 iterations of 4 x 5 rollouts, 2 of each problem learned from, twice; validated at 0, 2 and 3
    works, memory = forecast_local(config, suites, 2)
    rolled, trained, judged, together = works
    assert (rolled.decisions, judged.decisions, together.decisions) == (3 * 4 * 5 * 8, 3 * 6 * 8, 624)
    assert rolled.read == pytest.approx(3 * 4 * (one.opening + 5 * one.told))
    assert trained.trained == pytest.approx(2 * 3 * 4 * (one.opening + 2 * (one.told + one.written)))
    assert rolled.operations == 2 * model.per_token * (rolled.read + rolled.written)
    assert together.operations == pytest.approx(sum(each.operations for each in works[:-1]))
    assert rolled.seconds is not None
    assert together.seconds is not None
    assert 0 < rolled.seconds < together.seconds
    assert memory["weights"] == model.weights * 4 / 1e9
    assert playing("", one, 1, 1, model).written == 8
