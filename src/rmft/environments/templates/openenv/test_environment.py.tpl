"""Two resets with one seed tell the same, and another seed tells something else. Needs rmft's core only."""

from pathlib import Path

import rmft

SUITE = Path(__file__).parent / "server" / "suite.yaml"


def play(env: rmft.Env, seed: int) -> list[object]:
    seen: list[object] = [env.reset(seed)]
    while not env.over:
        seen.append(env.step(0))
    return seen


def test_two_resets_with_one_seed_tell_the_same() -> None:
    env, other = rmft.Env(SUITE), rmft.Env(SUITE)
    once = play(env, 7)
    assert play(env, 8) != once
    assert play(other, 7) == play(env, 7) == once
