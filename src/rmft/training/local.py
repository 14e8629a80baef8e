"""Fine-tunes an open-weight language model on what it wrote itself: weighted cross-entropy, with TRL and PEFT.

A policy's folder holds `policy.json` (the model that it starts from), the adapter as PEFT writes it or,
without LoRA, the whole model as transformers writes it, and the optimizer's state.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from rmft.config import LocalConfig, TrainingConfig
from rmft.errors import TrainingError
from rmft.training.adapter import POLICY, load_trainable, save_trained
from rmft.training.optimizer import load_optimizer, save_optimizer
from rmft.training.packing import ATTENTION, can_pack, pack
from rmft.training.schedule import learning_rate
from rmft.training.tokens import Written, batches, passes, written
from rmft.types import Example, PolicyRef

BETAS = (0.9, 0.98)


def new_policy(config: LocalConfig, seed: int, target: Path) -> PolicyRef:
    """Write the policy that a run starts from to the folder `target`: the model as it is, by its name.

    seed: not looked at; the adapter is made, from the seed of the first training, when it is needed.
    """
    (target / POLICY).write_text(json.dumps({"model": config.model}) + "\n", encoding="utf-8")
    save_optimizer(target)
    return PolicyRef("local", target)


class LocalTrainer:
    """Implements `Trainer`; each training goes on from the policy's adapter and optimizer state."""

    def __init__(self, training: TrainingConfig, policy: LocalConfig) -> None:
        self.training, self.policy = training, policy

    def train(
        self, policy: PolicyRef, examples: list[Example], target: Path, seed: int, progress: float
    ) -> tuple[PolicyRef, dict[str, float]]:
        """See `Trainer`. Raises TrainingError when the loss is not finite, RunDirectoryError for a damaged policy."""
        groups = [group for example in examples for group in written(example, self.training.anchor)]
        rate = learning_rate(self.training, progress)
        with _own_luck(seed), TemporaryDirectory() as scratch:
            model, tokenizer = load_trainable(policy.path, self.policy)
            trainer = _Trainer(
                self.training, self.policy, model, tokenizer, groups, policy.path, scratch, seed, rate
            )
            if groups:
                trainer.train()
            if trainer.is_world_process_zero():
                save_trained(model, tokenizer, policy.path, target)
                save_optimizer(target, trainer.optimizer, trainable(model))
            trainer.accelerator.wait_for_everyone()
        figures = {
            "loss": float(np.mean(trainer.losses)) if trainer.losses else 0.0,
            "gradient_norm": float(np.mean(trainer.norms)) if trainer.norms else 0.0,
            "learning_rate": rate,
            "steps": float(len(trainer.losses)),
            "tokens": float(trainer.num_tokens),
        }
        return PolicyRef("local", target), figures


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer on rows of token ids with weights: one item of its dataset is one process's part of a step."""

    def __init__(
        self,
        training: TrainingConfig,
        policy: LocalConfig,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        groups: list[list[Written]],
        start: Path,
        scratch: str,
        seed: int,
        rate: float,
    ) -> None:
        self.training, self.start, self.rate = training, start, rate
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.num_tokens = 0
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self.packs = can_pack(base.config.get_text_config(), base)
        if self.packs:
            base.set_attn_implementation(ATTENTION)
        if training.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        arguments = SFTConfig(
            output_dir=scratch,
            seed=seed % 2**32,
            use_cpu=policy.device == "cpu" or not torch.accelerator.is_available(),
            bf16=policy.precision == "bfloat16",
            num_train_epochs=1,  # all epochs are in the dataset
            per_device_train_batch_size=1,
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            max_length=None,
            gradient_checkpointing=False,  # switched on above, for the blocks that are trained
            max_grad_norm=0.0,  # the norm is clipped, and recorded, in `training_step`
            lr_scheduler_type="constant",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        steps = list(batches(groups, training.batch_size, training.epochs, np.random.default_rng(seed)))
        self.rows = [
            step[each :: arguments.world_size] for step in steps for each in range(arguments.world_size)
        ]
        super().__init__(
            model=model,
            args=arguments,
            data_collator=lambda items: items[0],
            train_dataset=Dataset.from_dict({"row": list(range(max(1, len(self.rows))))}),
            processing_class=tokenizer,
        )
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        parameters = trainable(self.model)
        self.optimizer = torch.optim.AdamW(
            parameters.values(), lr=self.rate, betas=BETAS, weight_decay=self.training.weight_decay
        )
        load_optimizer(self.start, self.optimizer, parameters)
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: object = None
    ) -> Any:
        """Gradients of one step, in as many passes as `tokens_at_once` asks for, and their norm clipped."""
        del num_items_in_batch
        model.train()
        batch: list[Written] = self.rows[inputs["row"]]
        device = self.accelerator.device
        count = torch.tensor(float(sum(one.count for one in batch)), device=device)
        total = max(1.0, float(self.accelerator.reduce(count)))
        loss = torch.zeros((), device=device)
        parts = passes(batch, self.training.tokens_at_once, shared=self.packs)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    piece = self.compute_loss(model, {"part": part}) / total
                self.accelerator.backward(piece * self.accelerator.num_processes)
            loss += piece.detach()
        loss = self.accelerator.reduce(loss)
        norm = self.accelerator.clip_grad_norm_(model.parameters(), self.training.max_gradient_norm)
        self.losses.append(float(loss))
        self.norms.append(float(norm))
        if not (np.isfinite(self.losses[-1]) and np.isfinite(self.norms[-1])):
            raise TrainingError(
                f"The loss is {float(loss)} with gradient norm {float(norm)}: training has diverged."
            )
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: object = None,
    ) -> Any:
        """The sum of a pass's losses; `inputs["part"]` are its groups of trajectories."""
        part: list[list[Written]] = inputs["part"]
        packed = pack(part, self.accelerator.device)
        self.num_tokens += packed.ids.numel()
        logits = model(
            input_ids=packed.ids,
            position_ids=packed.position_ids,
            packed_groups=packed.groups,
            logits_to_keep=packed.asked,
            use_cache=False,
        ).logits
        logs = logits.float().log_softmax(dim=-1)
        return -(packed.coefficients * logs[packed.rows, packed.targets]).sum()


@contextmanager
def _own_luck(seed: int) -> Iterator[None]:
    """Libraries draw from global generators inside; all are given back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
