"""Pictures of the report's three main views, for the README and docs.

    python benchmarks/screenshots.py RUN [--target docs/pictures]

Needs Debian's chromium and the package playwright. Writes report-overview.png, report-curves.png and
report-trajectory.png: a run of a language model that was evaluated, opened at the first problem on which
training changed a decision.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from rmft.report import write_report

WIDTH, HEIGHT = 1180, 1060


def pictures(page: Page, address: str, target: Path) -> None:
    """The top of the overview, the first curves, and a problem before and after training."""
    open_view(page, f"{address}#view=overview")
    page.screenshot(path=target / "report-overview.png")
    open_view(page, f"{address}#view=curves")
    page.locator("figure").first.evaluate("(figure) => scrollBy(0, figure.getBoundingClientRect().top - 160)")
    page.screenshot(path=target / "report-curves.png")
    open_view(page, f"{address}#view=trajectories")
    links = [link.get_attribute("href") for link in page.locator(".pairs a").all()]
    for link in links or [page.locator("table.found a").first.get_attribute("href")]:
        open_view(page, f"{address}{link}")
        if page.locator(".parting button").count():
            break
    page.screenshot(path=target / "report-trajectory.png")


def open_view(page: Page, address: str) -> None:
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("main[aria-busy=false]")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--target", type=Path, default=Path("docs/pictures"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = write_report(given.run, Path(folder) / "report.html")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(120_000)
        pictures(page, file.as_uri(), given.target)
        browser.close()


if __name__ == "__main__":
    main()
