"""The report on fake run directories made by hand: whole, unfinished, damaged and hostile ones."""

from __future__ import annotations

import html.parser
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rmft.errors import RunDirectoryError
from rmft.report import compare_runs, comparison_table, write_report
from rmft.report.charts import COLOURS, FIXED, exploration, policy_styles, run_styles
from rmft.report.evaluation_reader import PolicyResult, SettingResult
from rmft.report.page import escape
from rmft.report.run_reader import FILES, MAX_SETTINGS, read_run
from rmft.report.training_charts import regret_by_iteration
from rmft.report.untrusted import Interval, interval, number, whole
from rmft.report.words import against, digits, headline, second_line, shown

# regret, SuffFailFreq, and the exponent with which regret grows, of made-up policies on T=50, K=5
POLICIES = {
    "start": (16.40, 0.330, 1.00),
    "best": (3.70, 0.190, 0.45),
    "thompson": (6.30, 0.020, 0.60),
    "bayes-ucb(quantile=0.9)": (3.68, 0.170, 0.46),
    "sharpened-thompson": (4.39, 0.140, 0.50),
    "ucb": (4.65, 0.080, 0.53),
    "optimistic-greedy": (3.62, 0.210, 0.44),
    "ucb1": (10.50, 0.010, 0.84),
    "uniform": (16.60, 0.002, 1.00),
    "oracle": (0.00, 0.000, 1.00),
}
HORIZON = 50
HOSTILE = (
    "</script><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>\u202egpj\x1b[31m"
)


def around(mean: float, width: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def pulls(regret: float, suff_fail: float) -> dict[str, list[float]]:
    """Two humps: a share that never finds the best arm, and the rest who play it most of the time."""
    late = [math.exp(-(((n - 48 + 2 * regret) / 6) ** 2)) for n in range(HORIZON + 1)]
    early = [math.exp(-n / 2) for n in range(HORIZON + 1)]
    counts = [
        round(4000 * (suff_fail * early[n] / sum(early) + (1 - suff_fail) * late[n] / sum(late)))
        for n in range(HORIZON + 1)
    ]
    return {"counts": counts, "edges": [float(n) for n in range(HORIZON + 2)]}


def policy(name: str, others: list[str]) -> dict[str, object]:
    regret, suff_fail, exponent = POLICIES[name]
    curve = [regret * (t / HORIZON) ** exponent for t in range(1, HORIZON + 1)]
    return {
        "measures": {
            "regret": around(regret, 0.03 * regret),
            "suff_fail_freq": around(suff_fail, 0.02),
            "k_min_frac": around(0.2, 0.01),
            "greedy_frac": around(0.8, 0.01),
            "best_arm_freq": around(0.7, 0.01),
            "coverage": around(0.9, 0.01),
        },
        "paired_difference": {
            other: {"regret": around(regret - POLICIES[other][0], 0.1)} for other in others if other != name
        },
        "relative_regret": {
            other: around(regret / POLICIES[other][0], 0.03) for other in others if POLICIES[other][0] > 0
        },
        "trend_check": {"s": 40, "p_trend": 1e-6},
        "regression_check": {
            "b0": exponent,
            "p_reg": 1e-9,
            "floored": 0,
            "b0_below_1": {"p_value": 0.001, "low": exponent - 0.02, "high": exponent + 0.02},
        },
        "regret_curve": {
            "mean": curve,
            "low": [0.97 * value for value in curve],
            "high": [1.03 * value for value in curve],
        },
        "best_arm_pulls": pulls(regret, suff_fail),
    }


def evaluation(names: list[str], settings: list[str]) -> dict[str, object]:
    policies = {name: policy(name, names) for name in names}
    facts = {
        "feedback": "bandit",
        "horizon": HORIZON,
        "num_arms": 5,
        "regret": "pseudo",
        "num_problems": 2000,
    }
    pooled = ("measures", "paired_difference", "relative_regret")
    return {
        "format": "rmft-evaluation/1",
        "suite": "mab/uniform-means",
        "part": "held_out",
        "num_problems": 2000,
        "num_rollouts": 2,
        "seed": 0,
        "confidence": 0.95,
        "versions": {"numpy": "2.0"},
        "settings": {setting: {**facts, "policies": policies} for setting in settings},
        "overall": {name: {key: item[key] for key in pooled} for name, item in policies.items()},
    }


def metrics(last: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for index in range(last + 1):
        left = math.exp(-index / 9)
        regret, suff_fail = 3.8 + 12.6 * left + 0.01 * max(0, index - 40), 0.1 + 0.25 * abs(0.4 - left)
        row: dict[str, object] = {"iteration": index}
        if index:
            wobble = 0.4 * math.sin(7 * index)
            row["rollout"] = {
                "regret": regret + 1 + wobble,
                "suff_fail_freq": suff_fail + 0.03,
                "entropy": left,
            }
            row["selected"] = {"regret": 0.8 * (regret + 1 + wobble), "share": 0.5}
            row["train"] = {"loss": 0.3 + left}
        if index % 5 == 0:
            row["validation"] = {"regret": around(regret, 0.25), "suff_fail_freq": around(suff_fail, 0.03)}
        rows.append(row)
    return rows


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_run(
    run_dir: Path,
    name: str = "demo",
    config: str = "suite: mab/uniform-means\ntraining:\n  epochs: 2\n  learning_rate: 0.001\n",
    last: int = 60,
    names: list[str] | None = None,
    settings: list[str] | None = None,
) -> Path:
    run_dir.mkdir()
    about = {"format": 1, "rmft": "0.1.0", "name": name, "suite": "mab/uniform-means", "seed": 7,
             "versions": {"python": "3.12", "numpy": "2.0"}, "started": "2026-01-02T03:04:05"}  # fmt: skip
    timings = [
        {"iteration": index, "rollout": 1.5, "select": 0.25, "train": 2.0} for index in range(1, last + 1)
    ]
    files = {
        "config.yaml": config,
        "run.json": json.dumps(about),
        "metrics.jsonl": lines(metrics(last)),
        "timings.jsonl": lines(timings),
        "result.json": json.dumps({"status": "finished", "best_iteration": 40, "findings": ["No collapse."]}),
        "evaluation.json": json.dumps(evaluation(names or list(POLICIES), settings or ["uniform-means"])),
    }
    for file, content in files.items():
        (run_dir / file).write_text(content, encoding="utf-8")
    return run_dir


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

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())

    @property
    def charts(self) -> dict[str, dict[str, object]]:
        found = json.loads(self.scripts[0])
        assert isinstance(found, dict)
        return found


def page_of(run_dir: Path) -> Page:
    return Page(write_report(run_dir).read_text(encoding="utf-8"))


def test_a_whole_run_shows_every_part(tmp_path: Path) -> None:
    target = write_report(write_run(tmp_path / "run"))
    assert target == tmp_path / "run" / "report.html"
    assert target.stat().st_size < 8e6
    page = Page(target.read_text(encoding="utf-8"))
    for title in (
        "Before and after", "Regret by round", "Exploration against exploitation", "Pulls of the best arm",
        "Regret by iteration", "Suffix failures by iteration", "Selection", "Entropy by iteration",
        "Time spent", "Config", "Versions",
    ):  # fmt: skip
        assert title in page.text
    assert "Not everything could be shown" not in page.text
    assert "Training finished after 60 iterations, iteration 40 kept." in page.text
    assert "No collapse." in page.text
    assert "learning_rate: 0.001" in page.text
    # 60 iterations of 1.5 + 0.25 + 2 seconds: 225, of which training 120 (53%)
    assert "train 120 53%" in page.text
    assert "all 225 100%" in page.text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    assert page.loading == []
    assert page.handlers == []
    assert not {"link", "iframe", "img", "object", "base", "form"} & set(page.tags)
    assert len(page.scripts) == 3  # the charts' data, plotly.js, the page's own
    styles = re.findall(r"<style>(.*?)</style>", (tmp_path / "run" / "report.html").read_text(), re.DOTALL)
    assert len(styles) == 1
    assert not re.search(r"url\(|@import|http", styles[0])
    assert "http" not in page.scripts[0]
    assert "http" not in page.scripts[2]
    assert "showSendToCloud: false" in page.scripts[2]


def test_every_chart_has_its_numbers_as_a_table_and_a_description(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    assert len(page.charts) == 7
    assert [key for key in page.ids if key.startswith("chart-")] == list(page.charts)
    assert page.tags.count("details") == page.tags.count("figure") == 7
    assert page.tags.count("table") == 7 + 2  # and the policies, and the times
    # the first and last rows of the table beside the curves: 3.70 * (1/50)^0.45 = 0.636, and 3.70
    assert "0.64 [0.62, 0.66]" in page.text
    assert "3.70 [3.59, 3.81]" in page.text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run")
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir, tmp_path / "other.html").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.html", "run"]


def test_a_policy_looks_the_same_in_every_chart(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    wanted = ("after training", "before training", "Thompson sampling", "uniform play")
    seen: dict[str, set[str]] = {}
    for chart in page.charts.values():
        for trace in chart["data"]:
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


def test_the_best_baseline_is_not_named_twice(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", last=3, names=["start", "best", "thompson", "ucb1"]))
    assert "below Thompson sampling" in headline(run)
    assert second_line(run).startswith("Rollouts that never play the best arm")


def result(name: str, regret: float, **more: dict[str, Interval]) -> PolicyResult:
    difference = {other: {"regret": found} for other, found in more.get("difference", {}).items()}
    measures = {"regret": Interval(regret), "suff_fail_freq": more.get("fails", {}).get("", Interval(0.1))}
    return PolicyResult(name, measures, difference, more.get("relative", {}), None, None, None)


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
    chart = exploration(
        SettingResult("x", {}, {row.name: row for row in rows}), policy_styles(["best", "a", "b", "c"])
    )
    assert chart is not None
    frontier = chart.figure.data[0]
    assert list(zip(frontier.x, frontier.y, strict=True)) == [(0.1, 5.0), (0.2, 3.0)]
    assert [row[0] for row in chart.rows] == ["after training", "b", "c", "a"]


def test_several_settings_each_get_their_charts(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", settings=["longer", "more arms"]))
    assert "Setting: longer" in page.text
    assert "Setting: more arms" in page.text
    assert len(page.charts) == 2 * 3 + 4


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
    assert ("Before and after" in page.text) == (name != "evaluation.json")
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
    assert run.notes == ["metrics.jsonl: 1 damaged line(s) left out (line 2)."]


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
    assert "run.json has format 99; this version reads format 1" in page.text
    assert "later" in page.text
    assert "Before and after" in page.text


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
    page = Page(source)
    assert len(page.scripts) == 3
    assert page.loading == []
    assert page.handlers == []
    assert "img" not in page.tags
    assert "<script>alert" not in source
    assert "</script><script>alert(1)" in page.text  # said, as text
    assert "\\u202egpj\\u001b[31m" in page.text
    for character in "\u202e\x1b":
        assert character not in source
    names = {trace.get("name") for chart in page.charts.values() for trace in chart["data"]}  # type: ignore[union-attr]
    assert "&lt;b&gt;%{x}&amp;lt;\\ud800" in names  # plotly reads tags and entities in names
    assert not any("<" in name for name in names if name)


def test_only_what_is_a_run_directory_is_read(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"Found no folder at .*expected a run directory"):
        write_report(tmp_path / "none")
    with pytest.raises(RunDirectoryError, match="none of a run's files"):
        write_report(tmp_path)


def test_an_unwritable_target_is_one_clear_error(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", last=3)
    with pytest.raises(RunDirectoryError, match=r"Cannot write the report to .*No such file or directory"):
        write_report(run_dir, tmp_path / "no" / "folder" / "report.html")
    (run_dir / "report.html").mkdir()
    with pytest.raises(RunDirectoryError, match="Cannot write the report"):
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
    assert [digits(value) for value in values] == [
        "–", "0.00", "0.004", "−0.50", "3.68", "16.6", "1,234", "2.5e+07",
    ]  # fmt: skip
    assert shown("a\u200fb\x07\ncafé 日本 🎲") == "a\\u200fb\\u0007\ncafé 日本 🎲"
    assert shown("abcdef", 3) == "abc…"
    assert escape("<a href='x'>&") == "&lt;a href=&#x27;x&#x27;&gt;&amp;"


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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_every_chart_without_complaint(tmp_path: Path) -> None:
    target = write_report(write_run(tmp_path / "run", name=HOSTILE, names=["start", "best", "thompson"]))
    options = "--headless --no-sandbox --disable-gpu --disable-background-networking --enable-logging=stderr"
    command = ["chromium", *options.split(), "--virtual-time-budget=8000", "--dump-dom", target.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count('class="plot-container') == 7
    assert "CONSOLE" not in done.stderr  # errors, and what the content security policy refused
