"""A trained language model as other programs load it: a PEFT adapter, or a whole transformers model."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from rmft import __version__
from rmft.errors import ConfigError, RunDirectoryError
from rmft.generators.chat import with_date
from rmft.generators.loading import load_model, no_progress_bars
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
from rmft.types import FloatArray, PolicyRef

PAPER = "https://arxiv.org/abs/2511.04393"


@dataclass(frozen=True, slots=True)
class Comparison:
    """An exported model beside what it was exported from, over recorded decisions.

    from_policy, from_base: the largest difference of a legal answer's probability from that of the policy,
    and of the model before training. tolerance: what the first may be at most.
    """

    num_decisions: int
    from_policy: float
    from_base: float
    tolerance: float


def export_policy(policy: PolicyRef, target: Path, merge: bool, about: Mapping[str, Any]) -> None:
    """Write the policy to the new folder `target`, with a README.md that tells of it.

    merge: a whole model in float32 with the adapter in its weights (safetensors, tokenizer, chat template,
    generation config) instead of the adapter alone; a policy trained without LoRA is a whole model either
    way. about: what the card tells if it is there: run, suite, settings, iteration, validation ({"before",
    "after"} of measures), evaluation (as in evaluation.json) and rounds (of a recorded rollout, as its line
    has them). Where a chat template tells the date, that of training is written. Raises RunDirectoryError
    when `target` exists or can't be written or the policy is damaged, ConfigError when it has no adapter.
    """
    if os.path.lexists(target):
        raise RunDirectoryError(f"'{target}' exists already, and nothing is overwritten. Choose another.")
    config, adapter = read_policy(policy.path), adapter_in(policy.path)
    whole = merge or (policy.path / WHOLE).exists()
    if adapter is None and not whole:
        raise ConfigError(
            f"'{policy.path}' is the model as it was before training, without an adapter. Use --merge."
        )
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        staged.mkdir(parents=True)
        if whole:
            precision = "float32" if merge else config.precision
            model, tokenizer = load_model(model_of(policy.path, config), precision, "cpu", adapter=adapter)
            _fix_date(tokenizer)
            save_whole(model, tokenizer, staged)
        else:
            _copy_adapter(policy.path, staged, base_name(config))
            place = find_model(config.model)
            tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=Path(place).is_dir())
            if _fix_date(tokenizer):
                tokenizer.save_pretrained(staged)
        write_policy(staged, config.model_copy(update={"model": _from_home(config.model)}))  # for rmft itself
        (staged / "README.md").write_text(model_card(config, about, whole=whole), encoding="utf-8")
        os.rename(staged, target)
    except OSError as error:
        if isinstance(error, RunDirectoryError):
            raise
        raise RunDirectoryError(f"Can't write '{target}': {error.strerror or error}.") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def base_name(config: LocalConfig) -> str:
    """What the base model is called on other machines: on the model hub, or the name of its folder."""
    known = MODELS.get(config.model)
    is_folder = Path(config.model).expanduser().is_dir()
    return known.hub if known else Path(config.model).name if is_folder else config.model


def _from_home(model: str) -> str:
    """A path below the user's home without the home's own."""
    path = Path(model)
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else model


def _fix_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Have a chat template that tells the date tell that of training; whether it is one."""
    template = tokenizer.chat_template
    if not isinstance(template, str) or "strftime_now" not in template:
        return False
    tokenizer.chat_template = with_date(template)
    return True


def compare(policy: PolicyRef, target: Path, rounds: Sequence[Mapping[str, Any]]) -> Comparison:
    """Load an exported folder as other programs do, and let it answer what was asked in recorded rounds.

    Raises ConfigError when no round has an answer out of a few tokens, or the folder can't be loaded.
    """
    config = read_policy(policy.path)
    ids: list[int] = []
    decisions: list[tuple[int, list[int]]] = []
    for each in rounds:
        ids += each.get("ids") or []
        if each.get("legal") and ids:
            decisions.append((len(ids) - 2, list(each["legal"])))
    if not decisions:
        raise ConfigError("The run has recorded no decision among a few tokens to check the export with.")
    source = model_of(policy.path, config)
    played = load_model(source, config.precision, "cpu", adapter=adapter_in(policy.path))[0]
    of_policy = _answers(played, ids, decisions)
    del played
    try:
        with no_progress_bars(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's and transformers' own
            exported: Any = AutoModelForCausalLM.from_pretrained(
                target if (target / WHOLE).exists() else find_model(config.model),
                dtype="auto" if (target / WHOLE).exists() else getattr(torch, config.precision),
            )
            if not (target / WHOLE).exists():
                exported = PeftModel.from_pretrained(exported, str(target))
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ConfigError(f"'{target}' can't be loaded: {str(error).splitlines()[0]}") from None
    of_export = _answers(exported, ids, decisions)
    del exported
    of_base = _answers(load_model(find_model(config.model), config.precision, "cpu")[0], ids, decisions)
    return Comparison(
        len(decisions),
        float(np.abs(of_export - of_policy).max()),
        float(np.abs(of_export - of_base).max()),
        1e-3 if config.precision == "float32" else 0.05,
    )


@torch.inference_mode()
def _answers(model: Any, ids: Sequence[int], decisions: Sequence[tuple[int, list[int]]]) -> FloatArray:
    """The probabilities of each decision's legal tokens among each other, one after the other."""
    logits = model.eval()(torch.tensor([ids])).logits[0].double()
    return np.concatenate([logits[place, legal].softmax(dim=-1).numpy() for place, legal in decisions])


def _copy_adapter(source: Path, target: Path, base: str) -> None:
    path = source / ADAPTER_CONFIG
    try:
        settings = json.loads(path.read_bytes())
        settings["base_model_name_or_path"] = base
        weights = (source / ADAPTER).read_bytes()
        for name, each in load(weights).items():
            if not each.isfinite().all():
                raise ValueError(f"{name} holds numbers that are not finite")
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
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
    named = base_name(config)
    header |= {"license": known.licence.lower()} if known else {"base_model": named}
    base = f"{config.model} ({known.about}; licence {known.licence})" if known else named
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
    lines += _prompt(about.get("rounds", ()))
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


def _prompt(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """How a chat that it was trained on began, and how it answered."""
    if not rounds:
        return []
    first = rounds[0]
    said = {"system": first.get("system"), "user": first.get("prompt"), "assistant": first.get("completion")}
    told = [f"    {line}" for role, text in said.items() if text for line in f"{role}: {text}".splitlines()]
    return [
        "",
        "It was trained on chats of this form, and knows no other. It decides by the probabilities of the",
        "legal answers among each other where the answer stands; left to write freely, it writes anything.",
        "",
        *told,
    ]


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
        f"base = {'THE_BASE_MODEL' if known else json.dumps(base_name(config))}  # {where}",
        'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "THIS_FOLDER")',
    ]
