"""What a language model wrote in one round, token by token, while it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Completion:
    """What one row wrote in one round: tokens, their log probabilities (NaN: not its choice).

    mark: what has to follow its reasoning so that an answer can. cut: whether the budget cut its reasoning.
    """

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    mark: str = ""
    cut: bool = False

    def add(self, ids: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
        self.ids += [int(token) for token in ids]
        self.logprobs += logprobs or [float("nan")] * len(ids)
