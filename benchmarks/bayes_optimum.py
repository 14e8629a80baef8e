"""The expected regret of optimal play, and of greedy play on the posterior, in every setting of a suite.

Usage: python benchmarks/bayes_optimum.py [SUITE ...], by default words/bandits; of each the held-out part,
and the mean over its problems. Exact, where the reward processes state a prior; half a minute and 1 GB for
five arms over fifty rounds.
"""

from __future__ import annotations

import sys

from rmft.bayes.optimum import greedy_regret, optimum, refusal
from rmft.problems.suites import load_suite

for name in sys.argv[1:] or ["words/bandits"]:
    found = []
    for setting in load_suite(name).settings("held_out"):
        rules, prior, kind = setting.rules, setting.prior, setting.regret_kind
        if (why := refusal(rules, prior)) is not None:
            sys.exit(f"{name}, {setting.name}: {why}.")
        found.append((optimum(rules, prior, kind), greedy_regret(rules, prior, kind)))
        best, greedy = found[-1]
        print(f"{name}, {setting.name}: optimum {best:.4f}, greedy {greedy:.4f}, {greedy / best:.3f} of it")
    best, greedy = (sum(each) / len(found) for each in zip(*found, strict=True))
    print(f"{name}: optimum {best:.4f}, greedy {greedy:.4f}, {greedy / best:.3f} of it")
