"""The page in a real browser: from one file and from `rmft view`, whole, going on, damaged and hostile runs.

Needs Debian's chromium and the packages playwright and axe-playwright-python; where one is missing the tests
are skipped, or fail if RMFT_NEEDS_BROWSER=1 says that they must not be.
"""

from __future__ import annotations

import csv
import gzip
import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from rmft.errors import RunDirectoryError
from rmft.problems.suites import load_suite
from rmft.report import write_report
from rmft.report.server import ViewServer
from rmft.report.untrusted import shown as shown_by_python
from run_files import Talker, metrics, write_iteration, write_run, write_words

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
VIEWS = ("overview", "curves", "trajectories", "compare")
SAID = "conversations"
SPOKEN = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil.example/a.png) [y](javascript:alert(1))",
    "<svg/onload=alert(1)><style>*{display:none}</style><iframe srcdoc='<script>alert(1)</script>'>",
    "</script></textarea></title><base href=http://evil.example/><meta http-equiv=refresh content=0>",
    "'\"`><a href=javascript:alert(1)>{{7*7}}${alert(1)}",
    "\u202e\u2066gnp.exe\u2069 \u200b\ufeff\x00\x07\x1b[31mred\x1b[0m\r\b\b",
    "Z" + "\u0335\u0353\u034d\u0489" * 200,
    "W" * 3000,
    "\n" * 50 + "بسم الله ﷽ 𒐫 👩‍👩‍👧‍👦 \ud800",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        import axe_playwright_python.sync_playwright  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        missing = f"the package {error.name}: pip install playwright axe-playwright-python"
    else:
        missing = "" if CHROMIUM else "a browser: apt-get install chromium"
    if missing:
        said = f"The tests of the page need {missing}"
        if os.environ.get("RMFT_NEEDS_BROWSER") == "1":
            pytest.fail(said)
        pytest.skip(said)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


class Watched:
    """A page in a browser of its own, with all that it asked for and complained of."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.page: Page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(60_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None,
        )

    def open(self, address: str, **state: str) -> Page:
        """The page at `address` with this state in its hash, drawn; it is loaded once and then led about."""
        now = f"{address}#{urlencode(state)}"
        if self.page.url.partition("#")[0] != address or self.page.url == now:
            self.page.goto("about:blank")
            self.page.goto(now)
        else:
            self.page.evaluate(
                "(to) => new Promise((done) => { addEventListener('hashchange', () => setTimeout(done), "
                "{ once: true }); location.href = to; })",
                now,
            )
        self.settle()
        return self.page

    def settle(self) -> None:
        self.page.wait_for_selector("main[aria-busy=false]")


@pytest.fixture
def watch(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Makes pages; at the end none of them may have complained or asked for anything outside."""
    made: list[Watched] = []

    def new(**options: Any) -> Watched:
        made.append(Watched(browser, **options))
        return made[-1]

    yield new
    for each in made:
        each.page.context.close()
        assert each.complaints == []
        assert [
            url for url in each.requests if not re.match(r"file:|data:|blob:|http://127.0.0.1:", url)
        ] == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs; the first has trajectories in words: 2 x 18 of training, and 6 problems before and after."""
    folder = tmp_path_factory.mktemp("runs")
    first = write_words(write_run(folder / "first", last=6, settings=["two-arms", "three-arms"]))
    return [first, write_run(folder / "second", name="second", config="suite: smoke\n", last=3)]


@pytest.fixture(scope="module")
def file(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(runs, tmp_path_factory.mktemp("file") / "report.html").as_uri()


@pytest.fixture
def serve() -> Iterator[Callable[[list[Path]], ViewServer]]:
    started: list[ViewServer] = []

    def new(runs: list[Path]) -> ViewServer:
        server = ViewServer(runs)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        started.append(server)
        return server

    yield new
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["file", "server"])
def address(request: pytest.FixtureRequest, runs: list[Path]) -> str:
    """The same page from one file, and from a server."""
    if request.param == "file":
        return str(request.getfixturevalue("file"))
    return str(request.getfixturevalue("serve")(runs).address)


def stored(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def drawn(page: Page) -> int:
    return page.locator(".chart.js-plotly-plot").count()


def at_last() -> Any:
    """Playwright's assertions, which wait until they hold."""
    from playwright.sync_api import expect

    return expect


def holds(page: Page, selector: str, text: str) -> None:
    """Wait until an element says `text`."""
    at_last()(page.locator(selector).first).to_contain_text(text, timeout=60_000)


def test_every_view_opens(watch: Callable[..., Watched], address: str) -> None:
    watched = watch()
    expected = {
        **{"overview": ("16.4 → 3.70", 8), "curves": ("Before and after", 8)},
        **{"trajectories": ("48 of 48", 0), "compare": ("Settings in which they differ", 1)},
    }
    for view, (text, charts) in expected.items():
        page = watched.open(address, view=view)
        assert text in page.inner_text("main")
        assert drawn(page) == charts
        assert page.locator("nav [aria-current=page]").inner_text().lower() == view
    asked = [url for url in watched.requests if not url.startswith(("data:", "blob:"))]
    assert all(url.startswith(address) for url in asked)
    assert (len(asked) == 1) == address.startswith("file:"), "a file asks for nothing"


def test_the_first_of_several_runs_is_shown_and_any_can_be(watch: Callable[..., Watched], file: str) -> None:
    page = watch().open(file, view="overview", run="1")
    assert "second · suite" in page.inner_text("main")
    page.select_option("nav select", "0")
    holds(page, "main", "demo · suite")
    assert "run=0" in page.url


def listed(page: Page) -> tuple[str, list[list[str]]]:
    rows = [row.inner_text().split("\t") for row in page.locator("table.found tbody tr").all()]
    return page.inner_text(".count"), rows


def test_trajectories_are_filtered_and_the_address_holds_how(
    watch: Callable[..., Watched], file: str
) -> None:
    watched = watch()
    page = watched.open(file, view="trajectories")
    page.get_by_label("Learned from").select_option("yes")
    page.get_by_label("Setting").select_option("three-arms")
    assert listed(page)[0] == "12 of 48 trajectories"
    page.get_by_label("Iteration").select_option("2")
    count, rows = listed(page)
    assert count == "6 of 48 trajectories"
    assert {(row[0], row[1], row[6]) for row in rows} == {("training, iteration 2", "three-arms", "yes")}
    page.get_by_label("Order").select_option("highest")
    regrets = [float(row[5]) for row in listed(page)[1]]
    assert regrets == sorted(regrets, reverse=True)
    page.get_by_label("Regret from").fill(str(regrets[2]))
    count, rows = listed(page)
    assert [float(row[5]) for row in rows] == [regret for regret in regrets if regret >= regrets[2]]
    page.goto("about:blank")
    page.go_back()
    watched.settle()
    assert listed(page) == (count, rows)
    assert page.get_by_label("Order").input_value() == "highest"


def test_filters_by_context_policy_and_failure(
    watch: Callable[..., Watched], file: str, runs: list[Path]
) -> None:
    lines = stored(runs[0] / f"{SAID}.jsonl.gz")
    page = watch().open(file, view="trajectories", where=SAID)
    assert listed(page)[0] == "12 of 48 trajectories"
    context = lines[0]["context"]
    page.get_by_label("Context").select_option(context)
    assert len(listed(page)[1]) == sum(line["context"] == context for line in lines)
    page.get_by_label("Played by").select_option("start")
    assert all("before training" in row[0] for row in listed(page)[1])
    page.get_by_label("Failed").select_option("yes")
    assert listed(page) == ("0 of 48 trajectories", [])


def test_a_conversation_is_read_round_by_round(
    watch: Callable[..., Watched], address: str, runs: list[Path]
) -> None:
    line = stored(runs[0] / "trajectories" / "000001.jsonl.gz")[0]
    watched = watch()
    page = watched.open(address, view="trajectories", iteration="1")
    page.locator("table.found a").first.click()
    page.wait_for_selector(".round")
    assert "open=000001.0" in page.url
    rounds = page.locator(".round").all()
    assert len(rounds) == 8
    text = rounds[0].inner_text()
    assert "Let me see. Choose." in text
    assert f"Let me see. {line['rounds'][0]['arm']}" in text
    assert "Agent, not understood" in text
    chosen = " ".join(line["options"][line["rounds"][0]["arm"]])
    assert rounds[0].locator("tr.chosen th").inner_text() == f"{chosen} chosen"
    assert f"{100 * line['rounds'][0]['probabilities'][0]:.1f}%" in text
    hidden = rounds[-1].locator(".hidden-truth").all_inner_texts()
    assert hidden[0] == "true mean (hidden)"
    assert hidden[-1] == f"hidden: regret {line['rounds'][-1]['regret']:.2f}, so far {line['regret']:.2f}"
    page.get_by_label("Beside it").select_option("000001.1")
    page.wait_for_selector(".round:first-child .side:nth-child(2)")
    page.get_by_role("link", name="All trajectories").click()
    page.wait_for_selector("table.found")
    assert page.get_by_label("Iteration").input_value() == "1"


def test_before_and_after_stand_side_by_side_and_part(
    watch: Callable[..., Watched], address: str, runs: list[Path]
) -> None:
    lines = stored(runs[0] / f"{SAID}.jsonl.gz")
    arms = {(line["policy"], line["problem"]): [each["arm"] for each in line["rounds"]] for line in lines}
    page = watch().open(address, view="trajectories")
    for problem in range(6):
        start, best = arms["start", problem], arms["best", problem]
        parts = next((place for place in range(8) if start[place] != best[place]), None)
        page.locator(".pairs a").nth(problem).click()
        page.wait_for_selector(f"h1:has-text('problem {problem}')")
        assert [head.inner_text() for head in page.locator(".heads h2").all()] == [
            "before training",
            "after training",
        ]
        said = page.inner_text(".parting")
        assert said == (
            "They decide the same in every round." if parts is None else f"They part in round {parts + 1}."
        )
        if parts is not None:
            page.locator(".parting button").click()
            assert page.evaluate("document.activeElement.id") == f"round-{parts + 1}"
            assert page.locator(f"#round-{parts + 1}.parts").count() == 1
        page.get_by_role("link", name="All trajectories").click()
        page.wait_for_selector(".pairs")


def test_policies_and_axes_are_switched_and_the_address_holds_it(
    watch: Callable[..., Watched], file: str
) -> None:
    watched = watch()
    page = watched.open(file, view="curves")
    traces = "document.querySelector('.chart').data"
    seen = f"{traces}.filter((each) => each.visible !== false && each.name).map((each) => each.name)"
    assert "uniform play" in page.evaluate(seen)
    page.get_by_role("checkbox", name="uniform play").uncheck()
    page.get_by_role("checkbox", name="UCB1", exact=True).check()
    page.get_by_role("button", name="logarithmic").first.click()

    def check() -> None:
        assert "uniform play" not in page.evaluate(seen)
        assert "UCB1" in page.evaluate(seen)
        assert page.evaluate("document.querySelector('.chart').layout.xaxis.type") == "log"

    check()
    held = page.url
    page.goto("about:blank")
    page.goto(held)
    watched.settle()
    check()
    page.get_by_role("button", name="none", exact=True).click()
    assert page.evaluate(seen) == ["frontier of the baselines"] or page.evaluate(seen) == []


def test_numbers_and_pictures_are_downloaded(watch: Callable[..., Watched], file: str) -> None:
    page = watch(accept_downloads=True).open(file, view="curves")

    def got(name: str) -> bytes:
        with page.expect_download() as download:
            page.get_by_role("button", name=name).first.click()
        return Path(download.value.path()).read_bytes()

    rows = list(csv.reader(io.StringIO(got("Download Regret by round as CSV").decode())))
    assert rows[0][:4] == ["round", "after training", "after training low", "after training high"]
    assert len(rows) == 51
    assert [float(cell) for cell in rows[50][1:4]] == pytest.approx([3.70, 3.70 * 0.97, 3.70 * 1.03])
    assert got("Download Regret by round as PNG")[:8] == b"\x89PNG\r\n\x1a\n"
    svg = got("Download Regret by round as SVG").decode()
    assert svg.startswith("<svg")
    assert "Thompson sampling" in svg, "its legend is in it"


def test_the_keyboard_is_enough(watch: Callable[..., Watched], file: str) -> None:
    watched = watch()
    page = watched.open(file, view="overview")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Trajectories"
    page.keyboard.press("Enter")
    page.wait_for_selector("table.found")
    watched.settle()
    assert page.evaluate("document.activeElement.id") == "main", "the new view is read from its beginning"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('table.found') !== null"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".round")
    watched.open(file, view="curves")
    page.get_by_role("checkbox", name="uniform play").focus()
    page.keyboard.press("Space")
    assert "policy=" in page.url
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("details[open] table")


def test_a_phone_shows_it_without_scrolling_sideways(watch: Callable[..., Watched], file: str) -> None:
    watched = watch(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    for view in (*VIEWS, "opened"):
        page = watched.open(file, **state_of(view))
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        assert page.locator("h1").first.is_visible()


def state_of(view: str) -> dict[str, str]:
    return {"view": "trajectories", "open": f"{SAID}.0"} if view == "opened" else {"view": view}


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_no_serious_fault(watch: Callable[..., Watched], file: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    watched = watch(color_scheme=scheme, bypass_csp=True)
    for view in (*VIEWS, "opened"):
        page = watched.open(file, **state_of(view))
        for summary in page.locator("summary").all()[:1]:
            summary.click()
        serious = [
            (view, fault["id"], [node["html"][:200] for node in fault["nodes"]][:3])
            for fault in Axe().run(page, context={"exclude": [[".main-svg"]]}).response["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert serious == []


def test_charts_follow_the_theme(watch: Callable[..., Watched], file: str) -> None:
    page = watch(color_scheme="light").open(file, view="overview")
    title = page.locator(".chart .xtitle").first
    light, dark = "rgb(91, 100, 112)", "rgb(160, 169, 180)"
    expect = at_last()
    expect(title).to_have_css("fill", light)
    page.emulate_media(color_scheme="dark")
    expect(title).to_have_css("fill", dark)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 29)"


def test_it_prints_on_white(watch: Callable[..., Watched], file: str) -> None:
    page = watch(color_scheme="dark").open(file, view="overview")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()


SHAPE = "[...document.querySelectorAll('header, nav, main')].map((e) => [e.offsetLeft, e.offsetWidth])"
TAGS = "[...new Set([...document.querySelectorAll('body, body *')].map((e) => e.tagName))]"


def test_whatever_a_model_wrote_is_text(watch: Callable[..., Watched], tmp_path: Path) -> None:
    plain = write_words(write_run(tmp_path / "plain", last=2), 1, 2, len(SPOKEN))
    hostile = write_words(
        write_run(tmp_path / "run", name="".join(SPOKEN), last=2), 1, 2, len(SPOKEN), SPOKEN
    )
    found = json.loads((hostile / "evaluation.json").read_text())
    for policies in (found["overall"], *(each["policies"] for each in found["settings"].values())):
        policies |= dict.fromkeys(SPOKEN, policies["ucb1"])
    (hostile / "evaluation.json").write_text(json.dumps(found))
    addresses = [write_report(run_dir).as_uri() for run_dir in (plain, hostile)]
    before, after = watch(), watch()
    views = [state_of(view) for view in ("overview", "curves", "trajectories")]
    for state in [*views, *({"view": "trajectories", "open": f"000001.{row}"} for row in range(len(SPOKEN)))]:
        as_it_was = before.open(addresses[0], **state)
        page = after.open(addresses[1], **state)
        assert page.evaluate(SHAPE) == as_it_was.evaluate(SHAPE)
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
        assert set(page.evaluate(TAGS)) <= set(as_it_was.evaluate(TAGS)) | {"BUTTON"}
        assert page.locator("main a[href]:not([href^='#'])").count() == 0
        if "open" in state:
            words = SPOKEN[int(state["open"].partition(".")[2])]
            shown = page.locator(".message.agent .words").nth(1).text_content() or ""
            assert shown[:5] == shown_by_python(words)[:5]
            assert not set(shown) & set("\u202e\u2066\u200b\x00\x07\x1b\x08")


def test_a_run_that_goes_on_is_followed(
    watch: Callable[..., Watched], serve: Callable[[list[Path]], ViewServer], tmp_path: Path
) -> None:
    run_dir = write_words(write_run(tmp_path / "run", last=1), 1)
    for name in ("result.json", "evaluation.json"):
        (run_dir / name).unlink()
    watched = watch()
    page = watched.open(serve([run_dir]).address, view="overview")
    assert "No end of training is recorded after 1 iterations" in page.inner_text("main")
    holds(page, ".news", "this page follows it")
    rows = metrics(5)
    with (run_dir / "metrics.jsonl").open("a") as log:
        log.writelines(json.dumps(row) + "\n" for row in rows[2:6])
        log.write('{"iteration": 6, "roll')
    holds(page, "main", "after 5 iterations")
    page.goto(page.url.partition("#")[0] + "#view=trajectories")
    page.wait_for_selector("table.found")
    assert listed(page)[0].startswith("30 of 30")
    page.get_by_label("Iteration").or_(page.get_by_label("Order")).last.focus()
    write_iteration(run_dir, load_suite("words/bandits"), 2, 4, 2, Talker(3.0))
    holds(page, ".count", "38 of 38")
    assert page.evaluate("document.activeElement.tagName") == "SELECT", (
        "a user in the middle of something goes on"
    )


def test_a_damaged_run_says_what_is_missing_and_shows_the_rest(
    watch: Callable[..., Watched], tmp_path: Path
) -> None:
    run_dir = write_words(write_run(tmp_path / "run", last=3))
    (run_dir / "metrics.jsonl").write_text("garbage\n" + (run_dir / "metrics.jsonl").read_text())
    (run_dir / "trajectories" / "000001.npz").write_bytes(b"garbage")
    (run_dir / "trajectories" / "000002.jsonl.gz").write_bytes(b"garbage")
    (run_dir / "config.yaml").unlink()
    (run_dir / "result.json").write_text("{")
    page = watch().open(write_report(run_dir).as_uri(), view="overview")
    text = page.inner_text(".note.warn")
    for part in (
        "config.yaml is missing",
        "metrics.jsonl: 1 damaged line(s)",
        "result.json is damaged",
        "000001.npz is damaged",
    ):
        assert part in text
    assert drawn(page) == 8
    page = watch().open(write_report(run_dir).as_uri(), view="trajectories", open="000002.0")
    assert "missing or damaged" in page.inner_text("main")


def test_an_address_of_nothing_is_answered_in_words(watch: Callable[..., Watched], address: str) -> None:
    watched = watch()
    page = watched.open(address, view="<b>no</b>", run="99")
    assert "16.4 → 3.70" in page.inner_text("main"), "the overview of the first run"
    page = watched.open(address, view="trajectories", open="000009.1")
    assert "There is no trajectory 000009.1 here." in page.inner_text("main")


def request(
    server: ViewServer, method: str, path: str, host: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, content


def test_the_server_gives_the_page_and_its_pieces_and_nothing_else(
    serve: Callable[[list[Path]], ViewServer], runs: list[Path]
) -> None:
    server = serve(runs)
    assert server.server_address[0] == "127.0.0.1"
    status, headers, content = request(server, "GET", "/")
    assert status == 200
    assert b"connect-src 'self'" in content
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    for path in (
        *("/etc/passwd", "/../../etc/passwd", "//evil/", "/data/", "/data/9/overview", "/data/../run.json"),
        *("/data/%2e%2e%2frun.json", "/data/0/trajectory/..%2f..%2frun.json.1", "/data/0/trajectories/%00"),
        *("/data/0/trajectory/000001.jsonl.gz", "/data/0/trajectory/000001.%c2%b2", "/data/%c2%b2/overview"),
    ):
        assert request(server, "GET", path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert request(server, method, "/")[0] == 501
    assert request(server, "GET", "/data/runs", host="evil.example")[0] == 403
    assert request(server, "GET", "/", host="")[0] in (200, 403)
    assert request(server, "GET", "/data/runs", host=f"localhost:{server.server_address[1]}")[0] == 200


def test_the_commands_serve_until_they_are_stopped_and_print(runs: list[Path]) -> None:
    rmft = [sys.executable, "-m", "rmft.cli"]
    command = [*rmft, "view", *map(str, runs), "--no-browser"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's job in the background ignores Ctrl-C, and so would all that it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)[1])  # type: ignore[index]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/data/runs")
        names = [run["name"] for run in json.loads(connection.getresponse().read())["runs"]]
        connection.close()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert (names, process.returncode, errors) == (["first", "second"], 0, "")
    done = subprocess.run([*rmft, "show", str(runs[0])], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) <= 40
    assert "16.4 → 3.70" in done.stdout
    done = subprocess.run([*rmft, "view", "nowhere"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "There is no run directory 'nowhere'" in done.stderr


def test_a_port_that_is_taken_is_one_clear_message(
    serve: Callable[[list[Path]], ViewServer], runs: list[Path]
) -> None:
    port = serve(runs).server_address[1]
    with pytest.raises(RunDirectoryError, match=rf"Can't listen on port {port} .*Choose another --port"):
        ViewServer(runs, port)


@pytest.mark.slow
def test_a_hundred_thousand_trajectories_open_and_filter(
    watch: Callable[..., Watched], serve: Callable[[list[Path]], ViewServer], tmp_path: Path
) -> None:
    run_dir = write_run(tmp_path / "run", last=100)
    (run_dir / "trajectories").mkdir()
    write_iteration(run_dir, load_suite("words/bandits"), 1, 250, 4, Talker(3.0))
    for iteration in range(2, 101):
        for path in (run_dir / "trajectories").glob("000001.*"):
            shutil.copy(path, path.with_name(path.name.replace("000001", f"{iteration:06d}")))
    watched = watch()
    page = watched.page
    page.goto(f"{serve([run_dir]).address}#view=trajectories")
    page.wait_for_selector("table.found")
    assert listed(page)[0].startswith("100,000 of 100,000")
    page.get_by_label("Setting").select_option("two-arms")
    page.get_by_label("Learned from").select_option("yes")
    page.get_by_label("Order").select_option("lowest")
    assert listed(page)[0].startswith("25,000 of 100,000")
    page.locator("table.found a").first.click()
    page.wait_for_selector(".round")
    report = write_report(run_dir)
    assert report.stat().st_size < 12e6
    page = watched.open(report.as_uri(), view="trajectories")
    assert "This file holds 400 of 100,000 trajectories" in page.inner_text("main")
