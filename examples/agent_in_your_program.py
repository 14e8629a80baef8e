"""A trained agent in one's own program: a decision a line, and an episode that outlives the process."""

from __future__ import annotations

import sys

import numpy as np

import rmft

HEADLINES = ["Plain", "Question", "Number", "Promise"]
CLICKS = {"Plain": 0.2, "Question": 0.35, "Number": 0.6, "Promise": 0.3}


def show_headlines(agent: rmft.Agent, visitors: int, seed: int) -> float:
    """The share of visitors who click when `agent` chooses each one's headline; stopped once on the way."""
    world, clicks = np.random.default_rng(seed), 0.0
    episode = agent.episode(HEADLINES, horizon=visitors, seed=seed)
    while not episode.done:
        choice = episode.decide()
        clicked = float(world.random() < CLICKS[choice.name])
        episode.observe(reward=clicked)
        clicks += clicked
        if episode.num_rounds == visitors // 2:
            kept = episode.to_json()  # this text is all that has to be kept while the program does not run
            episode = agent.resume(kept)
    return clicks / visitors


def show_many(agent: rmft.Agent, sites: int, visitors: int, seed: int) -> float:
    """The same on several sites at once: a batch decides in a fraction of the time."""
    world, clicks = np.random.default_rng(seed), 0.0
    with agent.episodes(sites, HEADLINES, horizon=visitors, seed=seed) as episodes:
        while not episodes.done:
            chances = np.array([CLICKS[choice.name] for choice in episodes.decide()])
            clicked = world.random(sites) < chances
            episodes.observe(clicked.astype(float))
            clicks += clicked.mean()
    return clicks / visitors


if __name__ == "__main__":
    agent = rmft.Agent.load(sys.argv[1] if len(sys.argv) > 1 else "bayes-ucb(quantile=0.7)")
    print(f"One site: {show_headlines(agent, visitors=14, seed=0):.0%} of the visitors click")
    print(f"100 sites: {show_many(agent, sites=100, visitors=14, seed=0):.0%}; by chance 36%, at best 60%")
