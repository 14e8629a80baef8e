"""Repeated matrix games: in every round both sides play at once, and each is told its own rewards alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from rmft.decisions import one_hot
from rmft.errors import ConfigError
from rmft.reading import Config
from rmft.streams import Streams
from rmft.types import (
    Decisions,
    Environment,
    FloatArray,
    Histories,
    IntArray,
    OtherSide,
    Policy,
    RewardTable,
    Rules,
    Words,
)

SELF = "self"
"""The opponent that is whoever plays."""

Matrix = tuple[tuple[float, ...], ...]
Payoffs = tuple[Matrix, Matrix]

ROCK_PAPER_SCISSORS: Matrix = ((0, -1, 1), (1, 0, -1), (-1, 1, 0))
PENNIES: Matrix = ((1, -1), (-1, 1))


def _zero_sum(matrix: Matrix) -> Payoffs:
    return matrix, tuple(tuple(-value for value in row) for row in matrix)


GAMES: dict[str, Payoffs] = {
    "rock-paper-scissors": _zero_sum(ROCK_PAPER_SCISSORS),
    "matching-pennies": _zero_sum(PENNIES),
    "prisoners-dilemma": (((3, 0), (5, 1)), ((3, 5), (0, 1))),
}
"""Those with a name. In the prisoner's dilemma (Axelrod 1984) the arms are to cooperate and to defect."""


class MatrixGame(Config):
    """What both sides are paid for every pair of arms, of which each has num_arms.

    payoffs: the name of a game; "drawn", uniform on [0, 1] for every side and pair, anew for every problem;
    or two matrices, the policy's and the other side's, with a row for each arm of the policy and a column for
    each of the other side. A problem's table says, until it is played, what arms are paid on average
    over the other side's; after it, what they were paid against what it played.
    """

    kind: Literal["matrix_game"] = "matrix_game"
    payoffs: Literal["rock-paper-scissors", "matching-pennies", "prisoners-dilemma", "drawn"] | Payoffs = (
        "drawn"
    )

    @property
    def reward_range(self) -> tuple[float, float]:
        """Of both sides."""
        if self.payoffs == "drawn":
            return 0.0, 1.0
        paid = [value for matrix in self._given() for row in matrix for value in row]
        return float(min(paid)), float(max(paid))

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        """Whatever the other side makes of it, at most the whole range in every round."""
        low, high = self.reward_range
        return (high - low) * (horizon - 1)

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        """Raises ConfigError when the matrices given are not of num_arms rows and columns."""
        seed = np.array(generator.integers(2**63))
        shape = (2, num_arms, num_arms)
        payoffs = generator.random(shape) if self.payoffs == "drawn" else self._arrays(num_arms)
        average = np.broadcast_to(payoffs[0].mean(axis=1), (horizon, num_arms))
        return RewardTable(average, average, other=OtherSide(payoffs, seed))

    def _given(self) -> Payoffs:
        return GAMES[self.payoffs] if isinstance(self.payoffs, str) else self.payoffs

    def _arrays(self, num_arms: int) -> FloatArray:
        found = [[len(row) for row in matrix] for matrix in self._given()]
        if found != [[num_arms] * num_arms] * 2:
            raise ConfigError(
                f"found payoffs with rows of {found[0]} and {found[1]}; expected two matrices of num_arms "
                f"{num_arms} rows and columns."
            )
        return np.array(self._given(), dtype=np.float64)


class RepeatedGame(Environment):
    """A batch of games against another policy, which sees its own history and nothing else.

    table: (B, T, K), drawn by `MatrixGame`. words: what the other side is told in, from seeds. Where a side
    plays a distribution, its arm is drawn from it here: the other's rewards are those against that arm, and
    expected rewards those against the distribution. The other side's luck and these draws have streams of
    their own below the problem's seed, the same for all rollouts of it; none is the policy's. A side without
    a decision plays every arm equally often.
    """

    def __init__(
        self, rules: Rules, table: RewardTable, opponent: Policy, words: Callable[[Sequence[int]], Words]
    ) -> None:
        if table.other is None:
            raise ConfigError("A repeated game needs a table with payoffs of both sides; found one without.")
        self._rules, self._opponent, self._side = rules, opponent, table.other
        seeds = table.other.seeds.tolist()
        told = words([seed % 2**32 for seed in seeds])
        self._theirs = Histories(rules, len(seeds), told)
        self._luck, *self._draws = (Streams.at(0, [(seed, use) for seed in seeds]) for use in range(3))
        self._rewards, self._expected = table.rewards.copy(), table.expected_rewards.copy()
        self._played = np.full(table.rewards.shape, 1 / rules.num_arms)

    @property
    def rules(self) -> Rules:
        return self._rules

    @property
    def size(self) -> int:
        return self._theirs.size

    @property
    def table(self) -> RewardTable:
        """See `Environment`; with what the other side played."""
        other = OtherSide(self._side.payoffs, self._side.seeds, self._played)
        return RewardTable(self._rewards, self._expected, other=other)

    def step(self, decisions: Decisions) -> FloatArray:
        """The policy's feedback on one round; see `Environment`."""
        index, rows = self._theirs.num_rounds, np.arange(self.size)
        answer = self._opponent.decide(self._theirs, self._luck)
        arms, _ = self._dealt(decisions, self._draws[0])
        their_arms, their_shares = self._dealt(answer, self._draws[1])
        ours, theirs = self._side.payoffs[:, 0], self._side.payoffs[:, 1]
        paid, paid_them = ours[rows, :, their_arms], theirs[rows, arms]
        self._rewards[:, index] = paid
        self._expected[:, index] = np.einsum("bij,bj->bi", ours, their_shares)
        self._played[:, index] = their_shares
        full = self._rules.feedback == "full"
        self._theirs.append(answer, paid_them if full else paid_them[rows, their_arms])
        if self._theirs.num_rounds == self._rules.horizon:
            self._theirs.forget()
        return paid if full else paid[rows, arms]

    def _dealt(self, decisions: Decisions, draws: Streams) -> tuple[IntArray, FloatArray]:
        """(B,) the arms of a side, and (B, K) what they are drawn from; one-hot where it named one."""
        num_arms = self._rules.num_arms
        if decisions.arms is not None:
            shares = one_hot(decisions.arms, num_arms)
        else:
            assert decisions.probabilities is not None
            shares = decisions.probabilities.copy()
        shares[list(decisions.failed)] = 0.0
        shares = np.where(shares.any(axis=1, keepdims=True), shares, 1 / num_arms)
        return draws.choose(shares), shares
