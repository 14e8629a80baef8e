"""How fast a language model is trained, beside TRL's own way and what the machine's matrix products allow.

    python benchmarks/language_training_speed.py [--model smollm2-135m] [--threads 2] [--problems 4] [--trl]

Plays problems of the suite words/bandits with 8 rollouts each (seed 0, terse, no reasoning), learns from all
of them, and times steps of all trajectories at once: the difference between 3 epochs and 1, so that loading
is left out and told apart. Tokens per second count those of the trajectories; fewer are computed, as what
rollouts begin with in common is read once. The limit is the time that the floating-point work on the tokens
computed (the blocks forward, and backward through activations where there are adapters at or below;
attention; the output layer where something is predicted) would take at the rate of a 2048^3 fp32 product
measured in the same run. --trl: also trains on the same rows by TRL's SFTTrainer as it comes, 8 trajectories
in a padded batch (minutes).
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matmul import matmul_rate
from transformers import PreTrainedModel

from rmft.generators.loading import load_model
from rmft.generators.local import LocalEngine, head_of
from rmft.models.catalogue import find_model
from rmft.policies.config import LocalConfig, LoraConfig
from rmft.policies.language import LanguagePolicy
from rmft.problems.suites import load_suite
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.training.config import LocalTraining
from rmft.training.local import LocalTrainer, new_policy
from rmft.training.packing import pack
from rmft.training.tokens import TokenSequence, passes, token_sequences
from rmft.types import TrainingBatch, TrainingStep

ROLLOUTS, TOKENS_AT_ONCE = 8, 4096
LORAS = (LoraConfig(), LoraConfig(num_layers=10), LoraConfig(targets=("q_proj", "v_proj")))


def played(model: str, problems: int) -> list[TrainingBatch]:
    """Rollouts by the model as it is; everything that it did counts."""
    config = LocalConfig(model=model)
    loaded, tokenizer = load_model(find_model(model), "float32", config.device)
    policy = LanguagePolicy(LocalEngine(loaded, config.memory_gb), tokenizer, config, sample_arms=True)
    batches = []
    for batch in load_suite("words/bandits").draw("train", problems):
        table, words = batch.table.repeat(ROLLOUTS), batch.words.repeat(ROLLOUTS)
        streams = Streams.at(0, [(int(each), number) for each in batch.indices for number in range(ROLLOUTS)])
        trajectories = rollout(policy, batch.setting.play(table), streams, words)
        ones = np.ones((len(trajectories), batch.setting.horizon))
        group = np.repeat(batch.indices, ROLLOUTS)
        batches.append(TrainingBatch(trajectories, group, ones > 0, ones))
    return batches


def work(model: PreTrainedModel, lora: LoraConfig, groups: list[list[TokenSequence]]) -> tuple[float, int]:
    """Floating-point operations of one step, and the tokens that it computes."""
    config, head = model.config, head_of(model)
    layers, adapted = config.num_hidden_layers, lora.num_layers or config.num_hidden_layers
    linear = sum(each.numel() for name, each in model.named_parameters() if ".layers." in name)
    width = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    total, tokens = 0.0, 0
    for part in passes([one for group in groups for one in group], TOKENS_AT_ONCE):
        packed = pack(part, torch.device("cpu"))
        places = packed.position_ids.double()
        blocks = 2 * linear * places.numel() + 4 * layers * width * float((places + 1).sum())
        predicted = 2 * head.weight.numel() * float(packed.predicting.sum())
        total += blocks * (1 + adapted / layers) + 2 * predicted
        tokens += places.numel()
    return total, tokens


def seconds_of(model: str, lora: LoraConfig, batches: list[TrainingBatch]) -> tuple[float, float]:
    """Of one step, and of all else that a training takes."""
    config, seconds = LocalConfig(model=model, lora=lora, device="cpu"), []
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        start.mkdir()
        policy = new_policy(config, 0, start)
        for epochs in (1, 1, 3):
            target = Path(folder) / f"{len(seconds)}"
            target.mkdir()
            training = LocalTraining(
                epochs=epochs, warmup=0, batch_size=100_000, learning_rate=1e-4, tokens_at_once=TOKENS_AT_ONCE
            )
            begun = time.perf_counter()
            LocalTrainer(training, config).train(policy, batches, target, TrainingStep(1, 0, 0.0))
            seconds.append(time.perf_counter() - begun)
    step = (seconds[2] - seconds[1]) / 2
    return step, seconds[1] - step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--problems", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(find_model(options.model), "float32", "cpu")[0]
    batches = played(options.model, options.problems)
    groups = [group for batch in batches for group in token_sequences(batch)]
    tokens = sum(len(one.ids) for group in groups for one in group)
    print(
        f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, {options.model}, ",
        end="",
    )
    print(f"{options.problems} problems x {ROLLOUTS} rollouts, {tokens:,} tokens\n")
    print(
        "| adapters | tokens/s | computed | s per step | GFLOP/s product | share of the limit | all else, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for lora in LORAS:
        name = f"{', '.join(lora.targets or ('all linear',))} in {lora.num_layers or 'all'} layers"
        flops, computed = work(model, lora, groups)
        before = matmul_rate()
        step, rest = seconds_of(options.model, lora, batches)
        rate = (before + matmul_rate()) / 2
        print(
            f"| {name} | {tokens / step:,.0f} | {computed / tokens:.0%} | {step:.1f} | {rate / 1e9:.0f} "
            f"| {flops / rate / step:.0%} | {rest:.1f} |"
        )
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
