"""How a problem is told in words, as settings."""

from __future__ import annotations

from typing import Literal

from rmft.reading import Config


class Wording(Config):
    """How a problem is told in words (`rmft.scenarios`). The switches are independent of each other."""

    style: Literal["terse", "full"] = "terse"
    """`terse`: a handful of tokens per round; `full`: whole sentences."""
    hint: bool = False
    """Whether the policy is told that trying options and settling on good ones have to be balanced."""
    history: Literal["raw", "ranked", "summary", "guided"] = "raw"
    """`raw`: each round tells what just happened. `ranked`: the same, under full information with the option
    of the best total first, which lays the answer out: follow-the-leader plays what is named first, and what
    is learned is to trust that, not to compare. `summary`: also each option's count and mean so far.
    `guided`: also, in a bandit, the exploration bonus that UCB1 gives each option, sqrt(2 ln t / n) of the
    range of rewards (algorithm-guided support, Nie et al. 2025)."""
    answer: Literal["arm", "distribution"] = "arm"
    """`distribution` (full information only): how much of one unit goes on each option."""
    reasoning: Literal["off", "brief", "free"] = "off"
    """Whether the policy writes its own reasoning before each decision, and how long it is asked to be."""
    labels: Literal["drawn", "initials"] = "drawn"
    """The letter that stands for an option: `drawn` anew for every problem, or, where options are named, a
    letter of its name, the first that no option before it has."""
    rewards: Literal["raw", "scaled"] = "raw"
    """`raw`: in the context's unit; `scaled`: from 0 to 10, "7.3 of 10" where whole sentences are told; then
    rewards need bounds, of the reward process or as the setting's reward_range."""
