"""Parts are handed out one by one: each is told once and in order, whatever is slow or lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rmft.handout import Handout


@given(count=st.integers(0, 30), at_most=st.integers(1, 9), workers=st.integers(1, 9), luck=st.randoms())
def test_each_part_is_told_once_and_in_order(count: int, at_most: int, workers: int, luck: object) -> None:
    handout = Handout[str, int]((f"part {number}" for number in range(count)), at_most)
    out: list[tuple[int, str]] = []
    told: list[int] = []
    losses = 20
    while True:
        while len(out) < workers and (taken := handout.take()) is not None:
            assert taken[1] == f"part {taken[0]}"
            out.append(taken)
        if not out:
            break
        assert len({number for number, _ in out}) == len(out) <= at_most
        number, part = out.pop(luck.randrange(len(out)))  # type: ignore[attr-defined]
        if losses and luck.random() < 0.3:  # type: ignore[attr-defined]
            losses -= 1
            handout.lost(number, part)
        else:
            told += handout.done(number, number)
    assert told == list(range(count))


def test_a_slow_part_holds_back_what_comes_after_it_and_no_more_than_at_most() -> None:
    handout = Handout[str, str](iter("abcdef"), at_most=4)
    taken = [handout.take() for _ in range(4)]
    assert taken == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    assert handout.take() is None
    assert [handout.done(number, part) for number, part in taken[1:] if part] == [[], [], []]
    assert handout.take() is None, "three wait for the first"
    assert handout.done(0, "a") == ["a", "b", "c", "d"]
    assert (handout.take(), handout.take(), handout.take()) == ((4, "e"), (5, "f"), None)
