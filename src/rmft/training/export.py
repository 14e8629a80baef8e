"""A trained language model as other programs load it: a PEFT adapter, or a whole transformers model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rmft import __version__
from rmft.errors import ConfigError, RunDirectoryError
from rmft.generators.loading import load_model
from rmft.models.catalogue import MODELS, find_model
from rmft.policies.checkpoint import (
    ADAPTER,
    ADAPTER_CONFIG,
    WHOLE,
    adapter_in,
    model_of,
    read_policy,
    write_policy,
)
from rmft.policies.config import LocalConfig
from rmft.training.adapter import save_whole
from rmft.types import PolicyRef

PAPER = "https://arxiv.org/abs/2511.04393"


def export_policy(policy: PolicyRef, target: Path, merge: bool, about: Mapping[str, Any]) -> None:
    """Write the policy to the new folder `target`, with a README.md that tells of it.

    merge: a whole model with the adapter in its weights (safetensors, tokenizer, chat template, generation
    config) instead of the adapter alone; a policy trained without LoRA is a whole model either way. about:
    what the card tells if it is there: run, suite, settings, iteration, validation ({"before", "after"} of
    measures) and evaluation (as in evaluation.json). Raises RunDirectoryError when `target` exists or can't
    be written or the policy is damaged, ConfigError when it has no adapter to write.
    """
    if os.path.lexists(target):
        raise RunDirectoryError(f"'{target}' exists already, and nothing is overwritten. Choose another.")
    config, adapter = read_policy(policy.path), adapter_in(policy.path)
    whole = merge or (policy.path / WHOLE).exists()
    if adapter is None and not whole:
        raise ConfigError(
            f"'{policy.path}' is the model as it was before training and has no adapter. "
            "Export a later iteration, or the whole model with --merge."
        )
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        staged.mkdir(parents=True)
        if whole:
            model, tokenizer = load_model(
                model_of(policy.path, config), config.precision, "cpu", adapter=adapter
            )
            save_whole(model, tokenizer, staged)
        else:
            _copy_adapter(policy.path, staged, find_model(config.model))
        write_policy(staged, config)  # with which rmft plays it too
        (staged / "README.md").write_text(model_card(config, about, whole=whole), encoding="utf-8")
        os.rename(staged, target)
    except OSError as error:
        if isinstance(error, RunDirectoryError):
            raise
        raise RunDirectoryError(f"Can't write '{target}': {error.strerror or error}.") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _copy_adapter(source: Path, target: Path, base: str) -> None:
    path = source / ADAPTER_CONFIG
    try:
        settings = json.loads(path.read_bytes())
        settings["base_model_name_or_path"] = base
        weights = (source / ADAPTER).read_bytes()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunDirectoryError(f"The adapter in '{source}' is missing or damaged: {error}.") from None
    text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
    (target / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    (target / ADAPTER).write_bytes(weights)


def model_card(config: LocalConfig, about: Mapping[str, Any], *, whole: bool) -> str:
    """The README.md: base model, licence if known, what it was trained on and how, regret, how to load."""
    known = MODELS.get(config.model)
    header: dict[str, Any] = {
        "library_name": "transformers" if whole else "peft",
        "pipeline_tag": "text-generation",
    }
    header |= {"license": known.licence.lower()} if known else {"base_model": config.model}
    base = f"{config.model} ({known.about}; licence {known.licence})" if known else config.model
    wording = ", ".join(f"{key}: {value}" for key, value in config.wording.model_dump().items())
    facts = {
        "Base model": base if known else f"{base}; its licence applies",
        "Trained": "all weights" if config.lora is None else f"low-rank adapters, rank {config.lora.rank}",
        "Problems": f"the suite {about['suite']}" if "suite" in about else None,
        "Settings": ", ".join(about.get("settings", ())) or None,
        "Wording": wording,
        "Run": f"{about['run']}, iteration {about['iteration']}"
        if {"run", "iteration"} <= set(about)
        else None,
        "Made with": f"rmft {__version__}",
    }
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=True).strip(),
        "---",
        "",
        "# A model that decides with less regret",
        "",
    ]
    lines += [f"Trained by [Iterative Regret-Minimization Fine-Tuning]({PAPER}): it plays online decision"]
    lines += ["problems told in words, and learns from what it did itself where regret was low.", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items() if value]
    rows = [row for row in (_regret("validation", about), _regret("held-out", about)) if row]
    if rows:
        lines += ["", "| problems | regret before training | after |", "|---|---|---|", *rows, ""]
        lines += ["Regret is what was lost to the best arm; means with 95% intervals over problems."]
    return "\n".join([*lines, "", "```python", *_loading(config, whole=whole), "```", ""])


def _regret(part: str, about: Mapping[str, Any]) -> str | None:
    """A row of the card's table, when `about` tells of that part."""
    try:
        if part == "validation":
            before, after = (about["validation"][when]["regret"] for when in ("before", "after"))
        else:
            overall = about["evaluation"]["overall"]
            before, after = (overall[name]["measures"]["regret"] for name in ("start", "best"))
        cells = [f"{one['mean']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" for one in (before, after)]
    except (LookupError, TypeError, ValueError):
        return None
    return f"| {part} | {cells[0]} | {cells[1]} |"


def _loading(config: LocalConfig, *, whole: bool) -> list[str]:
    if whole:
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
        ]
    known = MODELS.get(config.model)
    where = "the base model's folder, as `rmft models` says" if known else "the base model"
    return [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = {'THE_BASE_MODEL' if known else json.dumps(config.model)}  # {where}",
        'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "THIS_FOLDER")',
    ]
