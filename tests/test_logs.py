"""Logs as people have them: what is read, what is refused, and how groups become parts of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmft.errors import RmftError
from rmft.problems.kinds import resolve_process
from rmft.problems.log_files import Log, LogColumns, load_log
from rmft.problems.logged import Parts
from rmft.problems.suites import PARTS, Suite, suite_from
from rmft.streams import generator

PLAIN = [[0.1, 0.4], [0.2, 0.3], [0.5, 0.5], [0.0, 1.0]]


def read(path: Path, content: str | bytes, **how: object) -> Log:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_log(str(path), "rewards", LogColumns(**how))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("0.1,0.4\n0.2,0.3\n0.5,0.5\n0,1\n", None),
        ("a,b\n0.1,0.4\n0.2,0.3\n\n0.5,0.5\n0,1\n", ("a", "b")),
        (",a,b\n0,0.1,0.4\n1,0.2,0.3\n2,0.5,0.5\n3,0,1\n", ("a", "b")),  # pandas, with its index
        (",0,1\n0,0.1,0.4\n1,0.2,0.3\n2,0.5,0.5\n3,0,1\n", ("0", "1")),
        (",a,b\n2024-01-01,.1,.4\n2024-01-02,.2,.3\n2024-01-03,.5,.5\n2024-01-04,0,1\n", ("a", "b")),
        ("a;b\n0,1;0,4\n0,2;0,3\n0,5;0,5\n0;1\n", ("a", "b")),
        ('a,b\n"0,1","0,4"\n"0,2","0,3"\n"0,5","0,5"\n0,1\n', ("a", "b")),
        ("\ufeffa;b\r\n0.1;0.4\r\n0.2;0.3\r\n0.5;0.5\r\n0;1\r\n", ("a", "b")),
        ("a\tb\n0.1\t0.4\n0.2\t0.3\n0.5\t0.5\n0\t1\n".encode("utf-16"), ("a", "b")),
    ],
)  # fmt: skip
def test_a_csv_is_read_as_it_was_meant(
    content: str | bytes, names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    log = read(tmp_path / "log.csv", content)
    assert log.names == names
    assert [each.tolist() for each in log.logs] == [PLAIN]


@pytest.mark.parametrize(
    ("content", "how", "names", "first"),
    [
        ("0,1,2\n.5,.5,.6\n", {"header": True}, ("0", "1", "2"), [0.5, 0.5, 0.6]),
        ("0,1,2\n.5,.5,.6\n", {"header": False}, None, [0, 1, 2]),
        ("day,a,b\n0,1,2\n1,1,2\n2,1,2\n3,1,2\n", {"columns": ("b", "a")}, ("b", "a"), [2, 1]),
        ("0,9,2\n1,1,2\n2,1,2\n3,1,2\n", {"columns": (None, "a", "b")}, ("a", "b"), [9, 2]),
        ("0,1,0\n1,0,1\n1,1,1\n0,0,0\n", {}, None, [0, 1, 0]),
        ("0,1\n1,0\n1,1\n0,0\n", {}, None, [0, 1]),  # rewards of 0 and 1 are no names of arms
    ],
)  # fmt: skip
def test_settings_say_what_a_log_does_not(
    content: str, how: dict[str, object], names: tuple[str, ...] | None, first: list[float], tmp_path: Path
) -> None:
    log = read(tmp_path / "log.csv", content, **how)
    assert (log.names, log.logs[0][0].tolist()) == (names, first)


@pytest.mark.parametrize(
    ("content", "how", "message"),
    [
        ("0,1,2\n.1,.4,.5\n", {}, "first line is 0, 1, 2, numbers of arms or rewards.*header: true.*columns"),
        ("2019,2020\n.1,.4\n", {}, "first line is 2019, 2020"),
        ("$1,$2\n$3,$4\n", {}, r"line holds '\$1', a name or an amount.*header: true"),
        ("t,a,b\n0,1,2\n1,1,2\n2,1,2\n3,1,2\n", {}, r"column 't' counts the lines \(0, 1, 2, ...\).*columns"),
        ("5,1,2\n", {"columns": ("a", "b")}, "found 2 columns named and 3 in the log, which has no header"),
        ("a,b\n1,NA\n", {}, "line 2, column 'b': found 'NA', a missing value"),
        ("day,a,b\nMonday,1,2\n", {}, r"column 'day': found 'Monday'; .* name those that are: columns"),
        ("a;b\n0,1;0.4\n", {}, "found '0,1' and '0.4'; expected decimal points, or decimal commas"),
        ('a,b\n"1,200","2,500"\n', {}, "found '1,200'; expected .* nothing between thousands"),
        ("alpha,beta\n1,2\n", {"columns": ("alpha", "bta")}, "Unknown column 'bta'. Did you mean 'beta'"),
        ("a,a,b\n1,2,3\n", {"columns": ("a", "b")}, "found several columns 'a'"),
        ("a,b\n1,2\n", {"group": "who"}, "Unknown column 'who'"),
        ("who,a,b\nx,1,2\n,1,2\n", {"group": "who"}, "found no group in round 1"),
        ("a,b\n", {}, "found 0 rounds of 2 arms"),
    ],
)  # fmt: skip
def test_what_could_be_either_is_refused(
    content: str, how: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RmftError, match=message):
        read(tmp_path / "log.csv", content, **how)


def test_parquet_with_an_index_and_columns_that_are_no_numbers(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    days = np.arange("2024-01-01", "2024-01-05", dtype="datetime64[D]")
    arms = {"a": [row[0] for row in PLAIN], "b": [row[1] for row in PLAIN]}
    table = pa.table({**arms, "__index_level_0__": days})
    path = tmp_path / "log.parquet"
    pyarrow.parquet.write_table(table, path)
    log = load_log(str(path), "rewards", LogColumns())
    assert (log.names, [each.tolist() for each in log.logs]) == (("a", "b"), [PLAIN])
    for column, shown in ((days, "'2024-01-01'"), ([{"x": 1}] * 4, "'{'x': 1}'")):
        pyarrow.parquet.write_table(pa.table({"who": column, **arms}), path)
        with pytest.raises(RmftError, match=f"row 0, column 'who': found {shown}; expected a finite number"):
            load_log(str(path), "rewards", LogColumns())
        assert load_log(str(path), "rewards", LogColumns(columns=("a", "b"))).names == ("a", "b")


def households(folder: Path, count: int = 40, **process: object) -> Suite:
    """Household h buys 3 + h % 4 times, in every round the reward of Oat is h and of Rye 100 + its round."""
    lines = [f"{h},{h},{100 + t}" for t in range(6) for h in range(count) if t < 3 + h % 4]
    (folder / "log.csv").write_text("\n".join(["home,Oat,Rye", *lines]))
    setting = {
        "name": "shop", "feedback": "bandit", "horizon": 4, "num_arms": 2, "arms": "named",
        "reward_process": {"kind": "logged", "rewards": "log.csv", "group": "home", **process},
    }  # fmt: skip
    return suite_from({"name": "m", "title": "M", "train": {"settings": [setting]}}, "m", str(folder))


def test_no_household_is_in_two_parts_nor_twice_in_one_that_is_reported(tmp_path: Path) -> None:
    suite = households(tmp_path)
    found = {part: suite.draw(part, 200)[0] for part in ("train", "validation", "held_out")}  # type: ignore[arg-type]
    homes = {part: batch.table.rewards[:, 0, 0].tolist() for part, batch in found.items()}
    assert not set(homes["train"]) & set(homes["held_out"])
    assert not set(homes["train"]) & set(homes["validation"])
    assert not set(homes["validation"]) & set(homes["held_out"])
    assert len(homes["train"]) == 200
    for part in ("validation", "held_out"):
        assert 1 <= len(homes[part]) == len(set(homes[part])) == len(found[part].words)
    assert all(home % 4 != 0 for each in homes.values() for home in each)  # those are too short
    table, words = found["train"].table, found["train"].words
    assert (np.diff(table.rewards[:, :, 1]) == 1).all()  # rounds in order
    assert words.names is not None
    assert words.names[0].tolist() == ["Oat", "Rye"]
    assert found["train"].setting.regret_kind == "static"
    again = suite_from(suite.model_dump(mode="json"), "again").draw("held_out", 200)[0]
    assert np.array_equal(again.table.rewards, found["held_out"].table.rewards)


def test_parts_are_shares_of_the_groups() -> None:
    parts = Parts(train=0.5, validation=0.1, held_out=0.4).of(100)
    assert {part: len(groups) for part, groups in parts.items()} == {
        "train": 50,
        "validation": 10,
        "held_out": 40,
    }
    assert len({group for groups in parts.values() for group in groups}) == 100
    with pytest.raises(RmftError, match=r"sum to 1\.3"):
        resolve_process({"kind": "logged", "rewards": PLAIN, "parts": {"train": 0.9}})
    with pytest.raises(RmftError, match="found 2 logs for 3 parts"):
        Parts().of(2)


def test_a_part_without_a_log_long_enough_is_named_when_the_suite_is_read(tmp_path: Path) -> None:
    with pytest.raises(
        RmftError, match=r"3 rounds \(rows\) in the part validation; the setting's horizon is 4"
    ):
        households(tmp_path, 10)


def test_a_numpy_log_of_many_logs_is_parted_when_asked(tmp_path: Path) -> None:
    np.save(tmp_path / "logs.npy", np.arange(20.0)[:, None, None] * np.ones((5, 2)))
    process = resolve_process(
        {"kind": "logged", "rewards": "logs.npy", "parts": {"held_out": 0.3, "train": 0.5}}, str(tmp_path)
    )
    assert len(process.for_part("held_out").which(5)) == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("field.csv", b"a,b\n" + b"1" * 200_000 + b",2\n"),
        ("huge.csv", b"a,b\n1e308,2\n1e308,3\n"),
        *(
            (f"{number}.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117).encode() + b"\n" + bytes(64))
            for number, header in enumerate(
                (
                    "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }",
                    "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 3), }",
                    "{'descr': '<f8'",
                    "{1: 2, 'a': 3}",
                    "(" * 100,
                )
            )
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_crafted_file_is_one_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RmftError, match=r"could not be read|a number from -1e\+100"):
        resolve_process({"kind": "logged", "rewards": str(tmp_path / name)}).draw(generator(0), 2, 2)


@pytest.mark.parametrize("kind", ["date32", "time64", "timestamp", "struct", "list", "binary"])
def test_a_parquet_column_of_another_kind_is_named_or_left_out(tmp_path: Path, kind: str) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values: dict[str, Any] = {
        "date32": pa.array([1, 2], pa.int32()).cast(pa.date32()),
        "time64": pa.array([1, 2], pa.time64("ns")),
        "timestamp": pa.array([2**60, 1], pa.timestamp("ms")),  # beyond all years that Python knows
        "struct": pa.array([{"x": 1}] * 2),
        "list": pa.array([[1]] * 2),
        "binary": pa.array([b"x"] * 2),
    }
    path = tmp_path / "log.parquet"
    parquet.write_table(pa.table({"a": [0.1, 0.2], "b": [1.0, 0.5], "other": values[kind]}), path)
    with pytest.raises(RmftError, match="column 'other': found"):
        resolve_process({"kind": "logged", "rewards": str(path)})
    resolve_process({"kind": "logged", "rewards": str(path), "columns": ["a", "b"]})


def test_the_parts_of_a_suite_have_rows_of_their_own_where_the_log_is_long_enough() -> None:
    rows = [[float(number), 0.0] for number in range(100)]
    process = {"kind": "logged", "rewards": rows, "shuffle_arms": False}
    setting = {"name": "s", "feedback": "bandit", "horizon": 20, "num_arms": 2, "reward_process": process}
    suite = suite_from({"name": "s", "title": "t", "train": {"settings": [setting]}}, "suite")
    spans = {}
    for part in PARTS:
        rewards = suite.draw(part, 50)[0].table.rewards[:, :, 0]
        spans[part] = (rewards.min(), rewards.max())
    assert spans["train"][1] < 60 <= spans["validation"][0]
    assert spans["validation"][1] < 80 <= spans["held_out"][0]
    setting["horizon"] = 50  # longer than a part
    suite = suite_from({"name": "s", "title": "t", "train": {"settings": [setting]}}, "suite")
    assert suite.draw("held_out", 50)[0].table.rewards.min() < 60
