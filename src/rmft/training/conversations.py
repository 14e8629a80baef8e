"""Trajectories in words as the conversations that providers train on, checked before they are uploaded.

    {"messages": [{"role": "system", "content": ...}, {"role": "user", ...},
                  {"role": "assistant", "content": ..., "weight": 0 or 1}, ...]}

The whole conversation is there, as it was had. What is learned from are the answers of weight 1: those of the
decisions in the batch's mask. Answers that could not be read have weight 0; empty ones, which no provider
takes, are left out with what was replied to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from rmft.errors import ConfigError
from rmft.messages import Message, count_tokens, messages
from rmft.providers.catalogue import ProviderFacts
from rmft.types import TrainingBatch

Conversation = list[Message]


def conversations(batches: Sequence[TrainingBatch]) -> list[Conversation]:
    """Every trajectory of which something is learned, in order; rollouts that failed are left out.

    Raises ConfigError for advantages other than 1 and for trajectories without words.
    """
    return [each for batch in batches for each in _of(batch)]


def _of(batch: TrainingBatch) -> Iterator[Conversation]:
    histories, learned = batch.trajectories.histories, batch.advantages[batch.mask]
    if (learned != 1).any():
        raise ConfigError(
            f"A decision has the advantage {learned[learned != 1][0]:g}; providers imitate whole answers, "
            "each or not. Choose another credit.kind, such as top_k_regret."
        )
    rows = batch.kept
    if len(rows) and len(histories.words.turns) != histories.num_rounds:
        raise ConfigError("These trajectories were not played in words, so that no provider can learn them.")
    for row in rows:
        if int(row) not in histories.failed:
            turns = [each[row] for each in histories.words.turns]
            yield messages(turns, batch.mask[row].astype(np.float64))


def to_jsonl(training: Sequence[Conversation], *, weights: bool = True) -> bytes:
    """The training file, the same bytes for the same conversations. weights: whether its format has them."""
    lines = []
    for conversation in training:
        plain = [
            {key: value for key, value in message.items() if weights or key != "weight"}
            for message in conversation
        ]
        lines.append(json.dumps({"messages": plain}, ensure_ascii=False, separators=(",", ":")) + "\n")
    return "".join(lines).encode("utf-8", "replace")


def check(training: Sequence[Conversation], size: int, facts: ProviderFacts, base: str) -> None:
    """Raise ConfigError, with all mistakes, for what the provider would refuse after the upload.

    size: of the file, in bytes. base: the model that is trained.
    """
    mistakes = []
    if len(training) < facts.min_examples:
        mistakes.append(
            f"found {len(training)} conversations, {facts.name} expects at least {facts.min_examples}: raise "
            "rollout.num_problems or credit.num_selected"
        )
    if facts.max_file_mb is not None and size > facts.max_file_mb * 10**6:
        mistakes.append(
            f"the training file has {size / 10**6:.0f} MB, {facts.name} takes at most {facts.max_file_mb}: "
            "lower rollout.num_problems or credit.num_selected"
        )
    limit = facts.model(base).example_tokens
    longest = max((count_tokens(each) for each in training), default=0)
    if limit is not None and longest > limit:
        mistakes.append(
            f"a conversation has about {longest} tokens, {base} is trained on at most {limit}: shorten the "
            "suite's horizon, or set policy.wording.style to terse"
        )
    if not facts.weights and any(message.get("weight") == 0 for each in training for message in each):
        mistakes.append(
            f"{facts.name} learns from all answers of a conversation, and some of these must not be learned "
            "from: choose a credit.kind that keeps whole trajectories, such as top_k_regret"
        )
    if mistakes:
        raise ConfigError(
            "The training file would be refused:\n" + "\n".join(f"- {each}" for each in mistakes)
        )
