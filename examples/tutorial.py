# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A policy that learns to decide, in five minutes
#
# A small network plays bandits it knows nothing about: five arms, each paying with a probability of its
# own, fifty rounds. Every rollout is scored by its **regret**, what it lost to the best arm, and the
# network learns from its own better decisions. No GPU is needed.

# %%
# %pip install --quiet "rmft[torch]"

# %%
import os
from pathlib import Path
from tempfile import mkdtemp

import rmft

folder = Path(mkdtemp())

# %% [markdown]
# ## Train
#
# `demo-numeric` is one of the configs that come with rmft (`rmft configs` lists them). A hundred
# iterations take four minutes on two cores; here is a smaller network and fewer of them.

# %%
iterations = int(os.environ.get("TUTORIAL_ITERATIONS", 25))
run = rmft.train(
    "demo-numeric",
    folder / "run",
    settings=[f"iterations={iterations}", "policy.width=16", "rollout.num_problems=32", "validation.every=5"],
    progress=True,
)

# %% [markdown]
# ## Compare
#
# Problems that it has never seen, on the same reward tables for everybody, with 95% intervals over
# problems.

# %%
result = rmft.evaluate(run, num_problems=200, against=["start", "thompson", "ucb"])
for name, found in result.overall.items():
    regret = found.measures["regret"]
    print(f"{name:10} {regret.mean:6.2f} [{regret.low:.2f}, {regret.high:.2f}]")

# %% [markdown]
# ## Look
#
# The whole report, with every decision of single problems under *Trajectories*; in a terminal the same
# line prints a summary.

# %%
rmft.show(run)

# %% [markdown]
# Each of its figures is a plotly figure of your own:

# %%
figures = rmft.plots(run)
print(*figures, sep="\n")
next(iter(figures.values()))

# %% [markdown]
# ## Use it
#
# The trained agent decides in your own program, a line per decision.

# %%
agent = rmft.Agent.load(run)
with agent.episode(options=["north", "south", "east", "west", "home"], horizon=50) as episode:
    for visit in range(5):
        choice = episode.decide()
        episode.observe(reward=float(choice.name == "east"))
        print(visit, choice.name, round(float(max(choice.probabilities)), 2))

# %% [markdown]
# Next: a task of your own (`rmft task new my-task`), a language model in place of the network (`rmft
# train demo`), or the method in equations, all in the documentation.
