"""Fine-tunes an open-weight language model on what it wrote itself, with TRL and PEFT.

The loss is cross-entropy on the tokens that the policy sampled, each by its round's weight; see
`rmft.training.tokens`. What a policy's folder holds is said in `rmft.generators.checkpoint`.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from rmft.config import LocalConfig, TrainingConfig
from rmft.errors import TrainingError
from rmft.generators.checkpoint import write_policy
from rmft.generators.local import find_device
from rmft.training.adapter import Trained, load_trainable, save_trained
from rmft.training.low_rank import fuse
from rmft.training.optimizer import load_optimizer, save_optimizer
from rmft.training.packing import ATTENTION, pack
from rmft.training.processes import in_processes, inside
from rmft.training.schedule import learning_rate
from rmft.training.tokens import Written, batches, passes, written
from rmft.types import Example, PolicyRef

BETAS = (0.9, 0.98)


def new_policy(config: LocalConfig, seed: int, target: Path) -> PolicyRef:  # noqa: ARG001
    """Write the policy that a run starts from to the folder `target`: the model as it is, by its name.

    seed: not looked at. Adapters are made by the first training, from its own seed.
    """
    write_policy(target, config)
    save_optimizer(target)
    return PolicyRef("local", target)


class LocalTrainer:
    """Implements `Trainer`: each training goes on from the policy's adapter and optimizer state.

    With `training.num_processes`, or under torchrun or accelerate where every process calls it with the same
    arguments, each takes its part of every step, and the first one writes. Run so on a processor; not run on
    a GPU.
    """

    def __init__(self, training: TrainingConfig, policy: LocalConfig) -> None:
        self.training, self.policy = training, policy

    def train(
        self, policy: PolicyRef, examples: list[Example], target: Path, seed: int, progress: float
    ) -> tuple[PolicyRef, dict[str, float]]:
        """See `Trainer`. Figures: the steps' mean loss and gradient norm, learning rate, steps, tokens read.

        Raises TrainingError when the loss is not finite, RunDirectoryError when the policy is damaged.
        """
        terms = self.training.anchor, self.training.format
        groups = [group for example in examples for group in written(example, *terms)]
        rate = learning_rate(self.training, progress)
        figures = fine_tune(policy.path, groups, target, self.policy, self.training, rate, seed)
        return PolicyRef("local", target), figures


def fine_tune(
    source: Path,
    groups: list[list[Written]],
    target: Path,
    policy: LocalConfig,
    training: TrainingConfig,
    rate: float,
    seed: int,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,  # noqa: ARG005
) -> dict[str, float]:
    """Train the policy in the folder `source` on `groups`, and write the next one to the folder `target`.

    rate: the learning rate of all steps. on_step: told of each step's number, from 1, how many there are,
    and its loss, unless there are several processes. Figures and errors are those of `LocalTrainer.train`.
    """
    if training.num_processes > 1 and not inside():
        work = partial(fine_tune, source, groups, target, policy, training, rate, seed)
        return in_processes(training.num_processes, work)
    shuffle = np.random.default_rng(seed)
    steps = list(batches(groups, training.batch_size, training.epochs, shuffle))
    with _own_luck(seed), TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the libraries, about each other
        model, tokenizer = load_trainable(source, policy)
        arguments = _arguments(policy, scratch, seed)
        trainer = _Trainer(model, tokenizer, steps, training, arguments, source, rate, on_step)
        if steps:
            trainer.train()
        tokens = trainer.over_processes(float(trainer.num_tokens))
        if trainer.is_world_process_zero():
            write_policy(target, policy)
            save_trained(model, tokenizer, policy.model, target)
            save_optimizer(target, trainer.create_optimizer(), _trainable(model))
        trainer.accelerator.wait_for_everyone()
    return {
        "loss": float(np.mean(trainer.losses)) if trainer.losses else 0.0,
        "gradient_norm": float(np.mean(trainer.norms)) if trainer.norms else 0.0,
        "learning_rate": rate,
        "steps": float(len(trainer.losses)),
        "tokens": tokens,
    }


def _arguments(policy: LocalConfig, scratch: str, seed: int) -> SFTConfig:
    """TRL's settings: it is to run the loop on what it is given, and to write and print nothing."""
    return SFTConfig(
        output_dir=scratch,
        seed=seed % 2**32,
        use_cpu=find_device(policy.device).type == "cpu",
        bf16=policy.precision == "bfloat16",
        num_train_epochs=1,  # the steps of all epochs are in the dataset
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        gradient_checkpointing=False,  # switched on elsewhere, without gradients below the lowest adapter
        max_grad_norm=0.0,  # the norm is clipped, and recorded, in `training_step`
        lr_scheduler_type="constant",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,
    )


def _share(step: list[Written], process: int, processes: int) -> list[Written]:
    """A process's part of a step. Where there is none it goes through the motions: all have to take part."""
    first = step[0]
    nothing = np.zeros_like(first.coefficients), np.zeros_like(first.masses)
    idle = replace(first, coefficients=nothing[0], masses=nothing[1], count=0)
    return step[process::processes] or [idle]


def _trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


class _Trainer(SFTTrainer):
    """TRL's trainer on tokens with weights: an item of its dataset is one process's part of one step."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: Trained,
        tokenizer: PreTrainedTokenizerBase,
        steps: list[list[Written]],
        training: TrainingConfig,
        arguments: SFTConfig,
        start: Path,
        rate: float,
        on_step: Callable[[int, int, float], None],
    ) -> None:
        self.training, self.start, self.rate, self.on_step = training, start, rate, on_step
        self.num_steps = len(steps)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.num_tokens = 0
        processes = arguments.world_size
        self.parts = [_share(step, process, processes) for step in steps for process in range(processes)]
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        assert isinstance(base, PreTrainedModel)
        base.set_attn_implementation(ATTENTION)
        if training.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
        if arguments.use_cpu:
            fuse(model)
        super().__init__(
            model=model,
            args=arguments,
            data_collator=lambda items: items[0],
            train_dataset=Dataset.from_dict({"part": list(range(max(1, len(self.parts))))}),
            processing_class=tokenizer,
        )
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with the state in which the last training left it."""
        if self.optimizer is None:
            parameters = _trainable(model or self.model)
            self.optimizer = torch.optim.AdamW(
                parameters.values(), lr=self.rate, betas=BETAS, weight_decay=self.training.weight_decay
            )
            load_optimizer(self.start, self.optimizer, parameters)
        return self.optimizer

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *_: object) -> torch.Tensor:
        """One step's gradients, accumulated over its passes; their norm is clipped. Returns the loss."""
        model.train()
        batch = self.parts[inputs["part"]]
        todo = passes(batch, self.training.tokens_at_once)
        total = self.over_processes(sum(one.count for one in batch))
        loss = 0.0
        for number, groups in enumerate(todo, 1):
            with nullcontext() if number == len(todo) else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    piece = self.compute_loss(model, {"groups": groups}) / max(1.0, total)
                self.accelerator.backward(piece * self.accelerator.num_processes)  # which are averaged over
            loss += piece.item()
        loss = self.over_processes(loss)
        norm = float(self.accelerator.clip_grad_norm_(model.parameters(), self.training.max_gradient_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(f"The loss is {loss} with gradient norm {norm}: training has diverged.")
        self.losses.append(loss)
        self.norms.append(norm)
        self.on_step(len(self.losses), self.num_steps, loss)
        return torch.tensor(loss, device=self.accelerator.device)

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *_: object) -> torch.Tensor:
        """The sum of the losses of one pass: groups of trajectories, those of a group with one opening."""
        packed = pack(inputs["groups"], self.accelerator.device)
        self.num_tokens += packed.ids.numel()
        logits: torch.Tensor = model(
            input_ids=packed.ids,
            position_ids=packed.position_ids,
            packed=packed.groups,
            logits_to_keep=packed.asked,
            use_cache=False,
        ).logits
        logs = (logits.float() / packed.temperature).log_softmax(dim=-1)
        loss = -(packed.coefficients * logs[packed.at, packed.targets]).sum()
        if len(packed.legal):
            among = logs[packed.decisions[:, None], packed.legal.clamp(min=0)]
            among = among.masked_fill(packed.legal < 0, float("-inf"))
            loss = loss + (packed.masses * among.logsumexp(dim=1)).sum()
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002
        """Not counted: it would be by a key that these inputs do not have."""
        return 0

    def over_processes(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.accelerator.num_processes == 1:
            return value
        return float(self.accelerator.reduce(torch.tensor(value, device=self.accelerator.device)))


@contextmanager
def _own_luck(seed: int) -> Iterator[None]:
    """Libraries seed the global generators and draw from them inside; all are given back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
