"""How fast a language model rolls out, beside what the machine's matrix products allow.

    python benchmarks/language_rollout_speed.py [--model smollm2-135m] [--threads 2] [--rows 64]
        [--horizons 10 20 40] [--told 13] [--reasoning 16] [--generate-rows 16] [--memory]

Plays rounds that look like the terse ones: an opening of about 100 tokens, shared by the 8 rollouts of a
problem, then in each round about 13 told tokens (--told; 2 are those of `policy.rounds: log`) and one that
is chosen among 5; with --reasoning N also N tokens of free writing. The tokens told are random (seed 0), so
there is no environment in the times. Tokens per second count those of the histories, told, written and
chosen, that were computed: an opening once per problem. The limit is the time that the model's own
multiplications (linear layers, attention, the rows of the output layer that are used) would take at the rate
of a 2048^3 fp32 product measured in the same run. Each figure is one run after a short one that is not
counted.

--generate-rows: also plays horizon 20 with so many rows by calling transformers' `generate` on the whole
history in every round (minutes); 0 leaves it out. --memory: also holds 64 rows of 1,000 tokens.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from dataclasses import dataclass

import numpy as np
import torch
from matmul import matmul_rate
from transformers import PreTrainedModel

from rmft.generators.loading import load_model
from rmft.generators.local import Session, bytes_per_token, head_of
from rmft.models.catalogue import find_model

ROLLOUTS, NUM_ARMS = 8, 5
LEGAL = np.arange(45, 45 + NUM_ARMS)


@dataclass
class Told:
    """What is told in every round (list of rows), and the uniforms that the rows draw with."""

    rounds: list[list[list[int]]]
    uniforms: np.ndarray  # (B, T, reasoning + 1)

    @staticmethod
    def draw(rows: int, horizon: int, reasoning: int, told: int) -> Told:
        generator = np.random.default_rng(0)

        def tokens(low: int, high: int) -> list[int]:
            return generator.integers(100, 30_000, generator.integers(low, high)).tolist()

        openings = [tokens(90, 111) for _ in range(-(-rows // ROLLOUTS))]
        rounds = [[openings[row // ROLLOUTS] for row in range(rows)]]
        rounds += [[tokens(told - 1, told + 2) for _ in range(rows)] for _ in range(horizon - 1)]
        return Told(rounds, generator.random((rows, horizon, reasoning + 1)))


def play(model: PreTrainedModel, told: Told) -> tuple[float, Session]:
    """Seconds of one rollout with a session that is kept."""
    rows, horizon, draws = told.uniforms.shape
    session = Session(model, rows, sum(max(map(len, new)) for new in told.rounds) + horizon * draws)
    begun = time.perf_counter()
    for index, new in enumerate(told.rounds):
        session.read(new)
        if draws > 1:
            session.write(draws - 1, lambda _: None, told.uniforms[:, index, :-1])
        session.choose(LEGAL, told.uniforms[:, index, -1])
    return time.perf_counter() - begun, session


def play_by_generate(model: PreTrainedModel, told: Told) -> float:
    """Seconds of the same rollout, without reasoning, where every round reads the whole history again."""
    histories: list[list[int]] = [[] for _ in told.rounds[0]]
    begun = time.perf_counter()
    for new in told.rounds:
        histories = [history + now for history, now in zip(histories, new, strict=True)]
        longest = max(len(history) for history in histories)
        ids = torch.tensor([[0] * (longest - len(history)) + history for history in histories])
        mask = torch.tensor([[0] * (longest - len(h)) + [1] * len(h) for h in histories])
        out = model.generate(ids, attention_mask=mask, max_new_tokens=1, do_sample=False, pad_token_id=0)
        histories = [[*h, token] for h, token in zip(histories, out[:, -1].tolist(), strict=True)]
    return time.perf_counter() - begun


def work(model: PreTrainedModel, told: Told, session: Session) -> tuple[int, float]:
    """Tokens computed in a rollout, and the floating-point operations that they need."""
    rows, horizon, draws = told.uniforms.shape
    config = model.config
    linear = sum(each.weight.numel() for each in model.modules() if isinstance(each, torch.nn.Linear))
    linear -= head_of(model).weight.numel()
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    openings = np.array([len(opening) for opening in told.rounds[0]])
    spared = np.array([row % ROLLOUTS > 0 for row in range(rows)]) * openings
    lengths = np.array([len(ids) - 1 for ids in session.ids])  # the last choice is not read
    computed = int((lengths - spared).sum())
    seen = float((lengths**2 - spared**2).sum()) / 2
    head_rows = rows * horizon * (NUM_ARMS + (draws - 1) * config.vocab_size)
    return computed, 2 * linear * computed + attention * seen + 2 * config.hidden_size * head_rows


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--horizons", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--told", type=int, default=13)
    parser.add_argument("--reasoning", type=int, default=16)
    parser.add_argument("--generate-rows", type=int, default=16)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, _ = load_model(find_model(options.model), "float32", "cpu")
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, {options.model},")
    print(f"{bytes_per_token(model):,} bytes of cache per token, ", end="")
    print(f"fp32 matrix product {matmul_rate() / 1e9:.0f} GFLOP/s\n")
    print("| rows | T | reasoning | seconds | vs first | tokens computed | tokens/s | share of the limit |")
    print("|---|---|---|---|---|---|---|---|")
    play(model, Told.draw(options.rows, 2, 1, options.told))
    base = 0.0
    runs = [(horizon, 0) for horizon in options.horizons]
    runs += [(options.horizons[0], options.reasoning)] if options.reasoning else []
    for horizon, reasoning in runs:
        told = Told.draw(options.rows, horizon, reasoning, options.told)
        rate = matmul_rate()
        seconds, session = play(model, told)
        rate = max(rate, matmul_rate())
        base = base or seconds
        tokens, operations = work(model, told, session)
        print(
            f"| {options.rows} | {horizon} | {reasoning} | {seconds:.1f} | {seconds / base:.2f}x "
            f"| {tokens:,} | {tokens / seconds:,.0f} | {operations / seconds / rate:.0%} |"
        )
        del session
    if options.generate_rows:
        told = Told.draw(options.generate_rows, 20, 0, options.told)
        ours, _ = play(model, told)
        theirs = play_by_generate(model, told)
        print(f"\n{options.generate_rows} rows, T = 20: {ours:.1f} s; ", end="")
        print(f"generate on whole histories {theirs:.1f} s ({theirs / ours:.1f}x)")
    print(f"\npeak memory {peak_gb():.2f} GB")
    if options.memory:
        session = Session(model, 64, 1000)
        session.read([list(range(100, 1080))] * 64)
        session.choose(LEGAL, np.linspace(0, 1, 64, endpoint=False))
        session.read([list(range(100 + row, 119 + row)) for row in range(64)])
        print(f"peak memory with 64 rows of 1,000 tokens besides: {peak_gb():.2f} GB")


if __name__ == "__main__":
    main()
