"""How often a provider may be asked: a token bucket for requests or tokens per minute."""

from __future__ import annotations

import asyncio
import time

BURST_SECONDS = 6.0  # of the rate may be used at once; providers enforce a minute's limit in shorter spans


class Bucket:
    """Lets `per_minute` units pass per minute, in bursts of at most a tenth of that; None: no limit.

    What is taken may exceed the bucket: it then waits until the bucket is full and leaves a debt, so that
    large requests pass, too, and the rate holds on average.
    """

    def __init__(self, per_minute: int | None) -> None:
        self.rate = None if per_minute is None else per_minute / 60.0
        self.capacity = 0.0 if self.rate is None else max(1.0, self.rate * BURST_SECONDS)
        self._level = self.capacity
        self._filled = time.monotonic()

    async def take(self, amount: float) -> None:
        """Wait until `amount` units may pass."""
        if self.rate is None or amount <= 0:
            return
        while (missing := min(amount, self.capacity) - self._now()) > 0:
            await asyncio.sleep(missing / self.rate)
        self._level -= amount

    def correct(self, amount: float) -> None:
        """Take `amount` more (or, negative, less) than was taken before, without waiting."""
        if self.rate is not None:
            self._level = min(self.capacity, self._now() - amount)

    def _now(self) -> float:
        now = time.monotonic()
        if self.rate is not None:
            self._level = min(self.capacity, self._level + (now - self._filled) * self.rate)
        self._filled = now
        return self._level
