"""The arrays that version 0.1 stored of an iteration, under the names that they have now.

It stored the regret of every rollout, decisions of the kept ones, and probabilities, expected rewards and the
regret of rounds of the first few of these: too little to train on, enough to be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rmft.errors import RunDirectoryError


def old_columns(setting: str, arrays: Mapping[str, np.ndarray], *, in_words: bool) -> dict[str, np.ndarray]:
    """One row per trajectory: of policies in words every rollout, else those that were kept.

    Where regret is known of whole trajectories only, it has one column. `failure` says "failed" without why.
    Raises RunDirectoryError when the arrays do not fit each other.
    """
    own = {key.rpartition("/")[2]: each for key, each in arrays.items() if key.rpartition("/")[0] == setting}
    try:
        regret, rows, weight = own["regret"], own["row"], own["weight"]
        times = regret.shape[1]
        all_rows = np.arange(regret.size)
        chosen = all_rows if in_words else rows
        found = {
            "group": own["problem"][chosen // times],
            "rollout": chosen % times,
            "regret": regret.reshape(-1, 1)[chosen],
            "mask": np.isin(all_rows, rows)[chosen][:, None],
            "advantage": np.zeros((regret.size, 1)),
        }
        found["advantage"][rows] = weight.max(axis=1, initial=0)[:, None]
        found["advantage"] = found["advantage"][chosen]
        if "failed" in own:
            found["failure"] = np.where(own["failed"], "failed", "")[chosen]
        if "context" in own:
            found["context"] = own["context"][chosen // times]
        if not in_words:
            found |= {"arm": own["arm"], "reward": own["reward"], "advantage": weight, "mask": weight != 0}
            of_the_first = ("probabilities", "expected_rewards", "round_regret")
            found |= {key: own[key] for key in of_the_first if key in own}
        if len(own["problem"]) != len(regret) or any(
            len(found[key]) != len(chosen) for key in ("group", "mask")
        ):
            raise ValueError("its rows and problems do not fit each other")
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise RunDirectoryError(
            f"what is stored of '{setting[:80]}' is incomplete: {str(error)[:200]}."
        ) from None
    return found
