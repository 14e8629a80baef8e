"""Random numbers: one stream per rollout, addressed by a path, drawn for a whole batch at once.

No global generator is touched. A stream depends on its path only, never on the batch that it is
drawn in, so that a rollout keeps its luck whichever others it shares a batch with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 256  # numbers drawn ahead per stream, so that a round costs one slice and no Python loop


def seed_sequence(seed: int, *path: int) -> np.random.SeedSequence:
    """The seed sequence at `path`, e.g. (iteration, problem, rollout), below `seed`."""
    return np.random.SeedSequence(entropy=seed, spawn_key=path)


def generator(seed: int, *path: int) -> np.random.Generator:
    """A generator at `path` below `seed`."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, *path)))


class Streams:
    """A batch of independent random streams, one per rollout.

    Every method returns an array whose first axis is the batch.
    """

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self.generators = list(generators)
        self._uniform = np.empty((len(self.generators), 0))
        self._normal = np.empty((len(self.generators), 0))

    @classmethod
    def at(cls, seed: int, paths: Sequence[tuple[int, ...]]) -> Streams:
        """One stream for every path below `seed`."""
        return cls([generator(seed, *path) for path in paths])

    def __len__(self) -> int:
        return len(self.generators)

    def uniform(self, count: int = 1) -> NDArray[np.float64]:
        """(batch, count) numbers, uniform on [0, 1)."""
        if self._uniform.shape[1] < count:
            fresh = np.stack([g.random(max(BLOCK, count)) for g in self.generators])
            self._uniform = np.concatenate([self._uniform, fresh], axis=1)
        drawn, self._uniform = self._uniform[:, :count], self._uniform[:, count:]
        return drawn

    def normal(self, count: int = 1) -> NDArray[np.float64]:
        """(batch, count) standard normal numbers."""
        if self._normal.shape[1] < count:
            fresh = np.stack([g.standard_normal(max(BLOCK, count)) for g in self.generators])
            self._normal = np.concatenate([self._normal, fresh], axis=1)
        drawn, self._normal = self._normal[:, :count], self._normal[:, count:]
        return drawn

    def choose(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """(batch,) arms, each drawn from its row of `probabilities` (batch, num_arms)."""
        edges = np.cumsum(probabilities, axis=1)
        draws = self.uniform() * edges[:, -1:]
        return np.asarray(
            np.minimum((draws >= edges).sum(axis=1), probabilities.shape[1] - 1), dtype=np.int64
        )
