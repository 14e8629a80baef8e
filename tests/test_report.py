"""The report on fake run directories made by hand: whole, unfinished, damaged and hostile ones."""

from __future__ import annotations

import html.parser
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rmft.errors import RunDirectoryError
from rmft.report import compare_runs, comparison_table, write_report
from rmft.report.blocks import Table
from rmft.report.charts import COLOURS, FIXED, frontier, policy_styles, run_styles
from rmft.report.curves import curves
from rmft.report.evaluation_reader import PolicyResult, SettingResult
from rmft.report.run_reader import FILES, MAX_SETTINGS, read_run
from rmft.report.terminal import MAX_LINES, WIDTH, overview_lines
from rmft.report.training_charts import reasoning, regret_by_iteration, selection
from rmft.report.untrusted import Interval, interval, number, shown, whole
from rmft.report.words import against, digits, findings, headline, second_line, with_bounds
from run_files import HOSTILE, evaluation, lines, metrics, write_run


class Page(html.parser.HTMLParser):
    """A page taken apart: tags balanced, text outside scripts, the attributes that could load something."""

    VOID = ("meta", "br", "img", "link", "input", "hr")
    LOADING = ("src", "srcset", "href", "data", "action", "poster", "background", "formaction", "ping")

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loading: list[tuple[str, str]] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.said: list[str] = []
        self.scripts: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key in self.LOADING:
                self.loading.append((tag, value or ""))
            if key.startswith("on"):
                self.handlers.append(key)
            if key == "id":
                self.ids.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.said.append(data)


class Report(Page):
    """A page with what it shows: its pieces, their text in reading order, and their charts by title."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.pieces = json.loads(self.scripts[0])
        blocks = [block for view in ("overview", "curves") for block in self.pieces[f"0/{view}"]["blocks"]]
        self.text = " ".join(" ".join(strings(blocks)).split())
        self.charts = [block for block in blocks if block["kind"] == "chart"]


def strings(node: object) -> list[str]:
    """Every string in it, and numbers and intervals as a reader sees them; not those of the figures."""
    if isinstance(node, dict):
        return [text for key, item in node.items() if key not in ("figure", "kind") for text in strings(item)]
    if isinstance(node, list):
        if (
            len(node) == 3
            and all(item is None or type(item) is float for item in node)
            and node[0] is not None
        ):
            return [with_bounds(Interval(*node))]
        return [text for item in node for text in strings(item)]
    return [node if isinstance(node, str) else digits(node)] if node is not None else []


def page_of(run_dir: Path) -> Report:
    return Report(write_report(run_dir).read_text(encoding="utf-8"))


def test_a_whole_run_shows_every_part(tmp_path: Path) -> None:
    target = write_report(write_run(tmp_path / "run"))
    assert target == tmp_path / "run" / "report.html"
    assert target.stat().st_size < 8e6
    page = Report(target.read_text(encoding="utf-8"))
    for title in (
        "Before and after", "Regret by round", "Exploration against exploitation", "Pulls of the best arm",
        "Regret against suffix failures", "Regret by iteration", "Suffix failures by iteration", "Credit",
        "Luck of the first arm", "Loss by iteration", "Entropy by iteration", "Time by iteration",
        "Time, memory, tokens and money spent", "Config", "Versions",
    ):  # fmt: skip
        assert title in page.text
    assert "Not everything could be shown" not in page.text
    assert "Training finished after 60 iterations, iteration 40 kept." in page.text
    assert "No collapse." in page.text
    assert "learning_rate: 0.001" in page.text
    # 60 iterations of 1.5 + 0.25 + 2 seconds: 225, of which training 120 (53%)
    assert "train, seconds 120 0.53" in page.text
    assert "all, seconds 225 1.00" in page.text
    assert "tokens 6,000" in page.text  # 60 iterations of 100
    assert "US dollars 6.00" in page.text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    assert page.loading == [("link", "data:,")]  # no icon, and none asked for
    assert page.handlers == []
    assert not {"iframe", "img", "object", "base", "form"} & set(page.tags)
    assert len(page.scripts) == 3  # the pieces, plotly.js, the page's own
    styles = re.findall(r"<style>(.*?)</style>", (tmp_path / "run" / "report.html").read_text(), re.DOTALL)
    assert len(styles) == 1
    assert not re.search(r"url\(|@import|http", styles[0])
    assert "http" not in page.scripts[0]
    assert "http" not in page.scripts[2]
    assert "showSendToCloud: false" in page.scripts[2]


def test_every_chart_has_its_numbers_as_a_table(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    assert len(page.charts) == 4 + 8
    for chart in page.charts:
        assert chart["caption"]
        assert chart["rows"], chart["title"]
        assert {len(row) for row in chart["rows"]} == {len(chart["columns"])}
    # the first and last rows of the table beside the curves: 3.70 * (1/50)^0.45 = 0.636, and 3.70
    assert "0.64 [0.62, 0.66]" in page.text
    assert "3.70 [3.59, 3.81]" in page.text


def test_what_the_numbers_say_is_said_in_words(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    # 1/2 of all rollouts and 3/4 of those above average start with the best arm; locking in: see `policy`
    # all rollouts: 3.8 + 12.6 exp(-1/9) + 1 + 0.4 sin 7 = 16.34 at first, 0.8 and 1.2 of it 13.07 and 19.61;
    # at last 3.8 + 12.6 exp(-60/9) + 0.2 + 1 + 0.4 sin 420 = 4.69, of which 3.75 and 5.62
    assert findings(run) == [
        "Regret of the rollouts above average and of those below: in iteration 1 13.1 and 19.6, in iteration "
        "60 3.75 and 5.62. The gap is what there is to learn.",
        "It locks onto its first arm in 10% of problems (before training: 16%; Thompson sampling: 1%).",
        "Its regret grows with exponent 0.45 [0.43, 0.47]; linearly is 1.",
        "In iteration 1 75% of what was above average starts with the best arm, of all rollouts 50%: the "
        "difference is the luck of the first arm.",
        "Rollouts failed in 1 iterations, at most 25% of them in iteration 3.",
    ]


def test_the_figures_of_an_older_run_are_shown_by_their_new_names(tmp_path: Path) -> None:
    """Version 0.1 wrote kept, rejected and selected, before that selected alone."""
    new = read_run(write_run(tmp_path / "new", last=3))
    run_dir = write_run(tmp_path / "run", last=3)
    (run_dir / "run.json").write_text('{"format": 1, "name": "old"}')
    older = []
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "rollout" in row:
            row |= {"kept": row.pop("above"), "rejected": row.pop("below"), "selected": row.pop("mask")}
            row["selected"]["regret"] = 0.5
            row["first_arm_best"]["selected"] = row["first_arm_best"].pop("above")
        older.append(row)
    (run_dir / "metrics.jsonl").write_text(lines(older))
    run = read_run(run_dir)
    assert run.iterations == new.iterations
    assert findings(run) == findings(new)
    assert not any("format" in note for note in run.notes)
    for row in older:
        row.pop("kept", None)
        row.pop("rejected", None)
    (run_dir / "metrics.jsonl").write_text(lines(older))
    run = read_run(run_dir)
    assert [row.below_regret for row in run.iterations] == [None] * 4
    assert run.iterations[1].above_regret == 0.5
    assert not any("below" in said for said in findings(run) if said.startswith("Regret of"))
    chart = selection(run)
    assert chart is not None
    assert [trace.name for trace in chart.figure.data] == ["all rollouts", "above average"]
    assert "below" in "\n".join(overview_lines(run))


def test_credit_shows_rollouts_above_average_beside_those_below(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", last=3))
    chart = selection(run)
    assert chart is not None
    above, below = chart.columns.index("above average"), chart.columns.index("below")
    for row, iteration in zip(chart.rows, run.iterations[1:], strict=True):
        assert (row[above], row[below]) == (iteration.above_regret, iteration.below_regret)
    assert [trace.name for trace in chart.figure.data] == ["all rollouts", "above average", "below"]


def test_saying_and_doing_by_iteration_are_shown_where_the_policy_reasons(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", last=3)
    silent = read_run(run_dir)
    assert reasoning(silent) is None
    assert "says" not in "\n".join(overview_lines(silent))
    (run_dir / "metrics.jsonl").write_text(lines(metrics(3, reasons=True)))
    run = read_run(run_dir)
    chart = reasoning(run)
    assert chart is not None
    does = chart.columns.index("says and does")
    assert [row[does] for row in chart.rows] == [row.says_does for row in run.iterations[1:]]
    assert re.search(r"entropy +cut +says +does\n", "\n".join(overview_lines(run)))
    said = "\n".join(findings(run))
    assert (
        "names exactly one option last in iteration 1 in 50% of rounds, and decides for that one in" in said
    )
    assert "Rounds cut by the budget: in iteration 1 25%" in said


def test_what_a_hosted_model_cost_is_in_its_journal(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", last=3)
    entries = [
        {"key": "a", "tokens": 100, "usd": 0.5},
        {"key": "facts"},
        {"key": "b", "tokens": 20, "usd": 0.25},
    ]
    (run_dir / "answers.jsonl").write_text(lines(entries) + "garbage\n" + '{"key": "c", "tok')
    assert read_run(run_dir).paid == {"tokens": 120, "US dollars": 0.75}
    with (run_dir / "answers.jsonl").open("w") as journal:
        journal.write(lines([*entries, {"key": "d", "tokens": 1, "usd": None}]))
    assert read_run(run_dir).paid == {"tokens": 121}, "a price is not known"


def test_the_overview_fits_a_terminal(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", name="\x1b[31mred\n" * 40))
    run.notes += [f"note {place}" for place in range(20)]
    run.findings *= 20
    lines = overview_lines(run)
    assert len(lines) <= MAX_LINES == 40
    assert max(map(len, lines)) <= WIDTH
    assert all(line.isprintable() for line in lines)
    text = "\n".join(overview_lines(read_run(write_run(tmp_path / "other"))))
    assert "16.4 → 3.70; 41% below Thompson sampling" in text
    assert re.search(r"^40 \* +3\.95 \[3\.70, 4\.20\]", text, re.MULTILINE), "the kept iteration is marked"
    assert re.search(
        r"^Thompson sampling +6\.30 \[6\.11, 6\.49\] +-2\.60 \[-2\.70, -2\.50\]", text, re.MULTILINE
    )
    assert "train 120 s, 6,000 tokens, 6.00 US dollars." in text


def test_on_a_narrow_terminal_columns_are_left_out_and_figures_stay_whole(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    for width in (50, 66):
        lines = overview_lines(run, width)
        assert max(map(len, lines)) <= width
        (row,) = (line for line in lines if line.startswith("Thompson sampling "))
        assert row.endswith("6.30 [6.11, 6.49]" if width == 50 else "-2.60 [-2.70, -2.50]")


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run")
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir, tmp_path / "other.html").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.html", "run"]


def test_a_policy_looks_the_same_in_every_chart(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    wanted = ("after training", "before training", "Thompson sampling", "uniform play")
    seen: dict[str, set[str]] = {}
    for chart in page.charts:
        for trace in chart["figure"]["data"]:
            line = trace.get("marker", {}).get("color") or trace.get("line", {}).get("color")
            if trace.get("name") in wanted:
                seen.setdefault(trace["name"], set()).add(line)
    assert {name: len(colours) for name, colours in seen.items()} == dict.fromkeys(seen, 1)
    assert len(seen) == 4


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", [*COLOURS, *(style.colour for style in FIXED.values())])
def test_lines_stand_out_on_light_and_dark_paper(colour: str) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 3
    assert (luminance(colour) + 0.05) / (luminance("#15181d") + 0.05) >= 3


def test_styles_differ_between_policies() -> None:
    styles = policy_styles(["best", "start", *(f"baseline-{place}" for place in range(18))])
    assert len({(style.colour, style.dash) for style in styles.values()}) == 20


def test_the_headline_says_how_much_better(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    # 3.70 / 6.30 = 0.587 +- 0.03: 41% below, from 38 to 44
    assert headline(run) == (
        "Regret on 2,000 unseen problems: 16.4 → 3.70; 41% below Thompson sampling [38, 44]"
    )
    # optimistic greedy is the best baseline: 3.70 / 3.62 = 1.022 +- 0.03
    assert second_line(run) == (
        "2% above optimistic-greedy [−1, 5] (no clear difference), the best baseline here. Rollouts that "
        "never play the best arm in the second half: 33% before training, 19% after, 21% for "
        "optimistic-greedy."
    )


def test_the_way_to_the_optimum_is_said_and_shown(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    found = json.loads((path / "evaluation.json").read_text())
    found["settings"]["uniform-means"]["optimum"] = found["optimum"] = 3.2
    for each in (found["overall"], found["settings"]["uniform-means"]["policies"]):
        each["best"]["share_to_optimum"] = {"mean": 0.955, "low": 0.94, "high": 0.97}
    (path / "evaluation.json").write_text(json.dumps(found))
    run = read_run(path)
    assert findings(run)[0] == "It has gone 96% [94%, 97%] of the way from the start to the optimum, 3.20."
    assert f"  - {findings(run)[0]}" in overview_lines(run)
    [table] = [block for block in curves(run, run_styles(run)).blocks if isinstance(block, Table)]
    assert table.columns[3] == "share to optimum"
    assert [row[3] for row in table.rows if row[3]] == [Interval(0.955, 0.94, 0.97)]
    assert "Expected regret of optimal play: 3.20" in table.caption


def test_the_best_baseline_on_validation_comes_first(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    found = json.loads((path / "evaluation.json").read_text())
    found["rivals"] = ["uniform", "bayes-ucb(quantile=0.9)", "optimistic-greedy", "thompson"]
    (path / "evaluation.json").write_text(json.dumps(found))
    run = read_run(path)
    assert "above bayes-ucb" in headline(run)
    assert headline(run).endswith("the best baseline on validation")
    assert second_line(run).startswith("Rollouts that never play the best arm")
    [table] = [block for block in curves(run, run_styles(run)).blocks if isinstance(block, Table)]
    assert [row[0] for row in table.rows][2:5] == [
        "bayes-ucb(quantile=0.9) (best baseline on validation)", "optimistic-greedy", "Thompson sampling"
    ]  # fmt: skip


def test_the_best_baseline_is_not_named_twice(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", last=3, names=["start", "best", "thompson", "ucb1"]))
    assert "below Thompson sampling" in headline(run)
    assert second_line(run).startswith("Rollouts that never play the best arm")


def result(name: str, regret: float, **more: dict[str, Interval]) -> PolicyResult:
    difference = {other: {"regret": found} for other, found in more.get("difference", {}).items()}
    measures = {"regret": Interval(regret), "suff_fail_freq": more.get("fails", {}).get("", Interval(0.1))}
    return PolicyResult(name, measures, difference, more.get("relative", {}), None, None, None, None)


def test_against_an_opponent_of_negative_regret_is_said_in_units_of_regret() -> None:
    # a percentage of a negative number would say the opposite
    best = result("best", -3.0, difference={"ftl": Interval(-2.0, -2.5, -1.5)})
    assert against(best, result("ftl", -1.0)) == "2.00 below ftl [1.50, 2.50]"
    assert against(result("best", -3.0), result("ftl", -1.0)) == "2.00 below ftl"
    assert against(result("best", 3.0), result("ftl", 2.0)) == "50% above ftl"
    worse = result("best", 3.0, relative={"ftl": Interval(1.5, 1.2, 1.8)})
    assert against(worse, result("ftl", 2.0)) == "50% above ftl [20, 80]"


def test_the_frontier_holds_the_baselines_that_none_beats_in_both() -> None:
    def at(name: str, fails: float, regret: float) -> PolicyResult:
        return result(name, regret, fails={"": Interval(fails)})

    rows = [
        at("best", 0.0, 0.1),
        at("a", 0.1, 5.0),
        at("b", 0.2, 3.0),
        at("c", 0.3, 4.0),
        at("uniform", 0, 0.2),
    ]
    chart = frontier(
        SettingResult("x", {}, {row.name: row for row in rows}), policy_styles(["best", "a", "b", "c"])
    )
    assert chart is not None
    line = chart.figure.data[-1]
    assert list(zip(line.x, line.y, strict=True)) == [(0.1, 5.0), (0.2, 3.0)]
    assert [row[0] for row in chart.rows] == ["after training", "b", "c", "a"]


def test_several_settings_each_get_their_charts(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", settings=["longer", "more arms"]))
    assert "Setting: longer" in page.text
    assert "Setting: more arms" in page.text
    assert len(page.charts) == 2 * 4 + 8


def test_a_run_still_going_on_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", last=7)
    for name in ("result.json", "evaluation.json"):
        (run_dir / name).unlink()
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 8, "rollout": {"reg')
    page = page_of(run_dir)
    # 3.8 + 12.6 = 16.40 at iteration 0; 3.8 + 12.6 exp(-5/9) = 11.03 at iteration 5
    assert "Regret on validation problems: 16.4 → 11.0 at iteration 5; not evaluated" in page.text
    assert "No end of training is recorded after 7 iterations." in page.text
    assert "evaluation.json is missing: 'rmft evaluate' has not been run on it yet." in page.text
    assert "damaged" not in page.text


DAMAGED = ("", "{", "[]", "\x00\xff", "[" * 100_000, "1" * 5000)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", DAMAGED, ids=[content[:2].encode().hex() for content in DAMAGED])
def test_one_damaged_file_leaves_the_rest(tmp_path: Path, name: str, content: str) -> None:
    run_dir = write_run(tmp_path / "run", last=3)
    (run_dir / name).write_bytes(content.encode("latin-1"))
    page = page_of(run_dir)
    assert "Config" in page.text
    assert "Versions" in page.text
    assert ("Regret by round" in page.text) == (name != "evaluation.json")
    assert ("During training" in page.text) == (name != "metrics.jsonl")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_anything_in_the_place_of_a_value_still_gives_a_page(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_dir = write_run(tmp_path_factory.mktemp("runs") / "run", last=3, names=["start", "best", "ucb"])
    name = data.draw(st.sampled_from(["run.json", "result.json", "evaluation.json"]))
    found = json.loads((run_dir / name).read_text())
    node = found
    while True:  # walk down to some value, and put anything there
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else list(range(len(node)))))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            node = node[key]
        else:
            node[key] = data.draw(ANYTHING)
            break
    (run_dir / name).write_text(json.dumps(found))
    (run_dir / "metrics.jsonl").write_text(
        json.dumps({"iteration": 1, "rollout": data.draw(ANYTHING)}) + "\n"
    )
    page_of(run_dir)


def test_baselines_on_the_validation_problems_are_the_reference(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", last=5)
    played = {"uniform": 16.0, "ucb": 5.0, "greedy": 6.0, "damaged": None}
    measures = {name: {"regret": {"mean": level}, "suff_fail_freq": 0.1} for name, level in played.items()}
    (run_dir / "baselines.json").write_text(json.dumps(measures))
    run = read_run(run_dir)
    chart = regret_by_iteration(run, run_styles(run))
    assert chart is not None
    levels = {trace.name: set(trace.y) for trace in chart.figure.data if trace.line.dash == "dash"}
    assert levels == {"uniform play": {16.0}, "UCB": {5.0}}  # the best of them, and uniform play
    assert chart.caption.endswith("Dashed: baselines on the same validation problems.")
    (run_dir / "baselines.json").unlink()
    run = read_run(run_dir)
    chart = regret_by_iteration(run, run_styles(run))
    assert chart is not None
    levels = {trace.name: set(trace.y) for trace in chart.figure.data if trace.line.dash == "dash"}
    assert levels == {"uniform play": {16.6}, "Thompson sampling": {6.3}, "optimistic-greedy": {3.62}}
    assert chart.caption.endswith("Dashed: baselines on the held-out problems.")


def test_damaged_lines_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", last=3)
    (run_dir / "metrics.jsonl").write_text(
        '{"iteration": 0, "validation": {"regret": {"mean": 9.0}}}\n'
        "garbage\n"
        '{"iteration": "1"}\n'
        '{"iteration": 2, "rollout": {"regret": NaN, "entropy": 1e999}, "validation": 7}\n'
        '{"iteration": 3, "rollout": {"regret": 8.0}}\n'
        '{"iteration": 3, "rollout": {"regret": 7.0}}\n'
    )
    run = read_run(run_dir)
    assert [row.index for row in run.iterations] == [0, 2, 3]
    assert run.iterations[0].regret == Interval(9.0)
    assert run.iterations[1].rollout_regret is None
    assert run.iterations[1].entropy is None
    assert run.iterations[2].rollout_regret == 7.0  # the later line holds
    assert run.notes == [
        "metrics.jsonl: 1 damaged line(s) left out (line 2).",
        "metrics.jsonl ends at iteration 3, result.json names 40: it was cut.",
    ]


def test_a_policy_without_a_regret_is_left_out_and_odd_curves_are_not_drawn(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", names=["start", "best", "ucb", "thompson"])
    found = json.loads((run_dir / "evaluation.json").read_text())
    policies = found["settings"]["uniform-means"]["policies"]
    policies["start"]["measures"]["regret"] = {"mean": None, "low": 1, "high": 2}
    policies["best"]["regret_curve"]["low"] = [1.0]
    policies["ucb"]["regret_curve"] = "none"
    policies["ucb"]["best_arm_pulls"] = {"counts": [1, -1], "edges": [0, 1, 2]}
    (run_dir / "evaluation.json").write_text(json.dumps(found))
    evaluation_found = read_run(run_dir).evaluation
    assert evaluation_found is not None
    overall = evaluation_found.overall.policies
    assert list(overall) == ["best", "ucb", "thompson"]
    best, ucb = overall["best"].curve, overall["ucb"]
    assert best is not None
    assert best[1] == best[0]
    assert (ucb.curve, ucb.pulls) == (None, None)
    assert "Regret by round" in page_of(run_dir).text


def test_another_version_is_named_and_shown_as_far_as_possible(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", last=3)
    (run_dir / "run.json").write_text('{"format": 99, "name": "later"}')
    page = page_of(run_dir)
    assert "run.json has format 99; this version reads format 1 and 2" in page.text
    assert "later" in page.text
    assert "Regret by round" in page.text


def test_hostile_strings_stay_strings(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", name=HOSTILE, config=f"a: '{HOSTILE}'\n", last=3)
    hostile = evaluation(["start", "best"], [HOSTILE])
    hostile["suite"] = hostile["part"] = HOSTILE
    setting = hostile["settings"][HOSTILE]  # type: ignore[index]
    setting["feedback"] = HOSTILE
    for policies in (setting["policies"], hostile["overall"]):
        policies[HOSTILE] = policies["start"]
        policies["<b>%{x}&lt;\ud800"] = policies["start"]
    (run_dir / "evaluation.json").write_text(json.dumps(hostile))
    (run_dir / "result.json").write_text(json.dumps({"status": HOSTILE, "findings": [HOSTILE, 3, None]}))
    (run_dir / "timings.jsonl").write_text(json.dumps({"iteration": 1, HOSTILE: 2.0}))
    about = {"format": HOSTILE, "name": HOSTILE, "suite": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    (run_dir / "run.json").write_text(json.dumps(about))
    source = write_report(run_dir).read_text(encoding="utf-8")
    page = Report(source)
    assert len(page.scripts) == 3
    assert page.loading == [("link", "data:,")]
    assert page.handlers == []
    assert "img" not in page.tags
    assert "<script>alert" not in source
    assert "</script><script>alert(1)" in page.text  # said, as text
    assert "\\u202egpj\\u001b[31m" in page.text
    for character in "\u202e\x1b":
        assert character not in source
    names = {trace.get("name") for chart in page.charts for trace in chart["figure"]["data"]}
    assert "&lt;b&gt;%{x}&amp;lt;\\ud800" in names  # plotly reads tags and entities in names
    assert not any("<" in name for name in names if name)


def test_only_what_is_a_run_directory_is_read(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"There is no run directory .*Give the folder"):
        write_report(tmp_path / "none")
    with pytest.raises(RunDirectoryError, match="none of a run's files"):
        write_report(tmp_path)
    write_run(tmp_path / "there")
    with pytest.raises(RunDirectoryError, match=r"There is no run directory .*Runs there: there\."):
        write_report(tmp_path / "ther")


def test_an_unwritable_target_is_one_clear_error(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", last=3)
    with pytest.raises(RunDirectoryError, match=r"Cannot write the report to .*No such file or directory"):
        write_report(run_dir, tmp_path / "no" / "folder" / "report.html")
    (run_dir / "report.html").mkdir()
    with pytest.raises(RunDirectoryError, match="is a folder, which a report does not replace"):
        write_report(run_dir)
    assert not list(run_dir.glob(".report*"))


def test_a_small_config_that_unfolds_hugely_is_bounded(tmp_path: Path) -> None:
    steps = [f"k{step}: &k{step} [{', '.join([f'*k{step - 1}'] * 9)}]" for step in range(1, 9)]
    config = "\n".join(["k0: &k0 [1, 2, 3, 4, 5, 6, 7, 8, 9]", *steps, "self: &self [*self]"])
    run_dir = write_run(tmp_path / "run", config=config, last=3)
    assert len(read_run(run_dir).config) <= MAX_SETTINGS
    assert "k8: &k8 [*k7, *k7" in page_of(run_dir).text


def test_values_that_nobody_vouches_for() -> None:
    assert [number(value) for value in (1, 2.5, True, "3", None, math.nan, math.inf, 10**400)] == [
        1.0, 2.5, None, None, None, None, None, None,
    ]  # fmt: skip
    assert [whole(value) for value in (3, 3.0, 3.5, -1, 1e300, False)] == [3, 3, None, None, None, None]
    assert interval({"mean": 1, "low": 0, "high": None}) == Interval(1.0)
    assert interval({"low": 0, "high": 2}) is None


def test_numbers_and_text_as_a_reader_sees_them() -> None:
    values = (None, 0.0, 0.004, -0.5, 3.678, 16.64, 1234.5, 2.5e7)
    assert digits(-0.0) == "0.00"
    assert [digits(value) for value in values] == [
        "–", "0.00", "0.004", "−0.50", "3.68", "16.6", "1,234", "2.5e+07",
    ]  # fmt: skip
    assert shown("a\u200fb\x07\ncafé 日本 🎲") == "a\\u200fb\\u0007\ncafé 日本 🎲"
    assert shown("abcdef", 3) == "abc…"


def test_runs_are_compared_by_result_and_differing_settings(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", name="first")
    config = "suite: mab/uniform-means\ntraining:\n  epochs: 3\n  learning_rate: 0.001\nextra: [1]\n"
    second = write_run(tmp_path / "second", name="[red]second\x1b[31m", config=config, last=10)
    (second / "evaluation.json").unlink()
    (second / "result.json").write_text('{"status": "stopped", "best_iteration": 5}')
    ours, theirs = compare_runs([first, second])
    assert (ours.best_iteration, ours.num_iterations, ours.seconds) == (40, 60, 225.0)
    # 3.8 + 12.6 exp(-40/9) = 3.948, +- 0.25
    assert ours.validation_regret is not None
    assert (digits(ours.validation_regret.mean), digits(ours.validation_regret.high)) == ("3.95", "4.20")
    assert ours.evaluation_regret == Interval(3.7, 3.7 - 0.111, 3.7 + 0.111)
    assert ours.evaluated_on == "mab/uniform-means held_out, 2,000 problems"
    assert ours.differing == {"training.epochs": "2", "extra.0": "–"}
    assert theirs.differing == {"training.epochs": "3", "extra.0": "1"}
    assert (theirs.status, theirs.evaluation_regret, theirs.seconds) == ("stopped", None, 37.5)
    console = Console(width=160, record=True, force_terminal=False)
    console.print(comparison_table([first, second]))
    printed = console.export_text()
    assert "[red]second\\u001b[31m" in printed
    assert "\x1b" not in printed
    assert re.search(r"training\.epochs\s+│\s+2 │\s+3 │", printed)
    assert "learning_rate" not in printed


def test_regrets_from_different_problems_are_not_compared_silently(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "first", last=3), write_run(tmp_path / "second", last=3)
    found = json.loads((second / "evaluation.json").read_text())
    (second / "evaluation.json").write_text(json.dumps({**found, "part": "validation"}))
    assert "so their regrets do not compare" in str(comparison_table([first, second]).caption)
