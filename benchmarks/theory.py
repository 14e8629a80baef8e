"""The statements of docs/theory.md, each checked by simulation; seconds on one core.

    python benchmarks/theory.py [--loop] [--picture docs/pictures/theory.png]

--loop: also trains one attention layer by the project's own loop (a minute) and reads it as Hedge.
All seeds are 0, 1, 2, ...; the numbers in brackets are 95% intervals over ten of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

FloatArray = NDArray[np.float64]
SEEDS = 10
GAP, NO_GAP, ALTERNATING = "random gaps", "no gap", "alternating"


def regret_loss_step(dimension: int, horizon: int, std: float, seed: int, size: int = 40_000) -> float:
    """The eta that minimizes E[(eta X + Y)^2], X = -sum_t <l_t, S_{t-1}>, Y = |S_T|, by its samples."""
    losses = np.random.default_rng(seed).normal(0, std, (size, horizon, dimension))
    sums = losses.cumsum(axis=1)
    moved = -(losses[:, 1:] * sums[:, :-1]).sum(axis=(1, 2))
    last = np.linalg.norm(sums[:, -1], axis=1)
    return float(-(moved * last).mean() / (moved**2).mean())


def differences(kinds: Sequence[str], size: int, horizon: int, seed: int) -> FloatArray:
    """(size, horizon): by how much arm 1 is paid more than arm 2; as many sequences of each kind."""
    generator, each = np.random.default_rng(seed), size // len(kinds)
    drawn = []
    for kind in kinds:
        if kind == ALTERNATING:
            signs = np.where(np.arange(horizon) % 2, -1.0, 1.0)
            signs[0] = 0.5
            drawn.append(generator.choice([-1.0, 1.0], (each, 1)) * signs)
        else:
            means = generator.normal(0, 0.5 * (kind == GAP), (each, 1, 2))
            paid = means + generator.normal(0, 1, (each, horizon, 2))
            drawn.append(paid[..., 0] - paid[..., 1])
    return np.concatenate(drawn)


def push(theta: float, paid: FloatArray, uniforms: FloatArray, kept: int) -> FloatArray:
    """(M,) d/dtheta of the mean log likelihood of the kept rollouts, by problem, at Hedge's step theta.

    Of L rollouts the `kept` of lowest regret are imitated. uniforms: (M, L, T), the rollouts' luck.
    """
    before = np.pad(paid.cumsum(axis=1)[:, :-1], ((0, 0), (1, 0)))
    first = 1 / (1 + np.exp(-np.clip(theta * before, -50, 50)))
    played = uniforms < first[:, None]
    gain = np.where(played, 0.5, -0.5) @ paid[..., None]
    score = ((played - first[:, None]) * before[:, None]).sum(axis=2)
    best = np.argsort(-gain[..., 0], axis=1)[:, :kept]
    return np.take_along_axis(score, best, axis=1).mean(axis=1)


def fixed_point(
    kinds: Sequence[str],
    rollouts: int = 16,
    kept: int = 4,
    horizon: int = 25,
    seed: int = 0,
    size: int = 1_000,
) -> float:
    """The theta at which selection pushes nowhere, found by bisection between -0.3 and 8."""
    paid = differences(kinds, size, horizon, seed)
    uniforms = np.random.default_rng([seed, 1]).random((len(paid), rollouts, horizon))
    low, high = -0.3, 8.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if push(middle, paid, uniforms, kept).mean() > 0 else (low, middle)
    return (low + high) / 2


def push_at_uniform(kinds: Sequence[str], kept: int, rollouts: int, seed: int) -> tuple[float, float]:
    """The push at theta = 0: simulated, and by the formula of the page."""
    paid = differences(kinds, 4_000, 25, seed)
    generator = np.random.default_rng([seed, 2])
    uniforms = generator.random((len(paid), rollouts, 25))
    normal = np.sort(generator.normal(size=(100_000, rollouts)), axis=1)[:, -kept:].mean()
    before = np.pad(paid.cumsum(axis=1)[:, :-1], ((0, 0), (1, 0)))
    formula = normal / 2 * ((paid * before).sum(axis=1) / np.sqrt((paid**2).sum(axis=1))).mean()
    return float(push(0.0, paid, uniforms, kept).mean()), float(formula)


def over_seeds(values: Sequence[float]) -> str:
    mean, spread = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
    half = spread * student_t.ppf(0.975, len(values) - 1)
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def report() -> None:
    print("Regret-loss, linear attention: eta simulated, and eta = E[chi_d] / (d sigma sqrt(T))")
    for dimension, horizon, std in ((2, 25, 1.0), (3, 20, 2.0), (5, 50, 0.5)):
        chi = math.sqrt(2) * math.gamma((dimension + 1) / 2) / math.gamma(dimension / 2)
        found = over_seeds([regret_loss_step(dimension, horizon, std, seed) for seed in range(SEEDS)])
        formula = chi / (dimension * std * math.sqrt(horizon))
        print(f"  d {dimension}, T {horizon}, sigma {std}: {found}, formula {formula:.4f}")
    print("RMFT's push at uniform play, k 4 of L 16, T 25: simulated, and by the formula")
    for kinds in ([GAP], [NO_GAP], [ALTERNATING]):
        both = [push_at_uniform(kinds, 4, 16, seed) for seed in range(SEEDS)]
        print(f"  {kinds[0]}: {over_seeds([a for a, _ in both])}, formula {over_seeds([b for _, b in both])}")
    print("RMFT's fixed point theta*, k 4 of L 16, T 25")
    for kinds in ([GAP], [NO_GAP], [GAP, ALTERNATING]):
        print(
            f"  {' and '.join(kinds)}: {over_seeds([fixed_point(kinds, seed=seed) for seed in range(SEEDS)])}"
        )
    print("theta* by k and L (random gaps and alternating, T 25)")
    for kept, rollouts in ((1, 16), (2, 16), (4, 16), (8, 16), (1, 4), (8, 32)):
        found = [fixed_point([GAP, ALTERNATING], rollouts, kept, seed=seed) for seed in range(SEEDS)]
        print(f"  {kept} of {rollouts}: {over_seeds(found)}")
    print("theta* by k of L 16 (random gaps, T 25)")
    for kept in (1, 2, 4, 8):
        print(f"  {kept}: {over_seeds([fixed_point([GAP], 16, kept, seed=seed) for seed in range(SEEDS)])}")
    print("theta* by T (random gaps and alternating; random gaps alone), k 4 of L 16")
    for horizon in (10, 25, 50, 100):
        mixed, gaps = (
            over_seeds([fixed_point(kinds, horizon=horizon, seed=seed, size=600) for seed in range(SEEDS)])
            for kinds in ([GAP, ALTERNATING], [GAP])
        )
        print(f"  T {horizon}: {mixed}; {gaps}")


def loop(iterations: int = 30) -> dict[str, list[float]]:
    """theta by iteration of one attention layer in the project's own loop, on fol/gaussian-gap."""
    from rmft.config import parse_config
    from rmft.improve import improve, seed_of
    from rmft.policies.networks.attention import Attention
    from rmft.policies.numeric import load_network
    from rmft.wiring.backends import backend
    from rmft.wiring.suites import load_suites

    found: dict[str, list[float]] = {}
    for kind in ("linear", "softmax"):
        config = parse_config({
            "suite": "fol/gaussian-gap",
            "iterations": iterations,
            "policy": {"kind": "attention", "num_arms": 5, "attention": kind},
            "rollout": {"num_problems": 128, "num_rollouts": 16},
            "credit": {"kind": "top_k_regret", "num_selected": 4},
            "training": {"learning_rate": 0.05, "epochs": 2, "batch_size": 64, "schedule": "constant"},
        })  # fmt: skip
        suites, folder, thetas = load_suites(config), Path(mkdtemp()), []
        machinery = backend(config, suites)
        (folder / "0").mkdir()
        policy = machinery.start(folder / "0", seed_of(config.seed, 0))
        for number in range(1, iterations + 1):
            stage, progress = config.stage_of(number)
            problems = suites[stage.suite].draw("train", stage.rollout.num_problems, config.seed, number)
            (target := folder / str(number)).mkdir()
            policy, _ = improve(
                policy,
                machinery,
                problems,
                stage,
                target,
                iteration=number,
                seed=config.seed,
                progress=progress,
            )
            network, _ = load_network(policy.path)
            assert isinstance(network, Attention)
            theta, off = network.step()
            thetas.append(theta)
        print(f"  {kind} attention: theta {thetas[0]:.3f}, {thetas[9]:.3f}, {thetas[-1]:.3f} after 1, 10, "
              f"{iterations} iterations; off Hedge by {off:.3f} of it")  # fmt: skip
        found[kind] = thetas
    return found


def draw(path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4), constrained_layout=True)
    steps = np.linspace(-1, 2, 61)
    uniforms = np.random.default_rng([0, 1]).random((1_000, 16, 25))
    for kinds, colour in (([GAP], "#0b6e4f"), ([ALTERNATING], "#c1440e"), ([GAP, ALTERNATING], "#333333")):
        paid = differences(kinds, 1_000, 25, 0)
        pushes = [push(float(step), paid, uniforms, 4).mean() for step in steps]
        left.plot(steps, pushes, color=colour, label=" and ".join(kinds))
    left.axhline(0, color="#999999", linewidth=0.8)
    left.set(ylim=(-2, 4), xlabel="theta", ylabel="push of selection on theta", title="Where theta goes")
    left.legend(frameon=False, fontsize=8)
    for kinds, colour in (([GAP], "#0b6e4f"), ([GAP, ALTERNATING], "#333333")):
        kepts = [1, 2, 3, 4, 6, 8]
        points = [
            np.mean([fixed_point(kinds, 16, kept, seed=seed, size=600) for seed in range(5)])
            for kept in kepts
        ]
        right.plot([kept / 16 for kept in kepts], points, marker="o", color=colour, label=" and ".join(kinds))
    right.set(xlabel="k / L", ylabel="theta*", title="Where it rests", yscale="log")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    print(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    report()
    if options.loop:
        print("One attention layer in the loop, fol/gaussian-gap (K 5, T 50), k 4 of L 16")
        loop()
    if options.picture:
        draw(options.picture)
