"""Open-weight language models, from a folder or a model hub, ready to play in this process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from rmft.errors import ConfigError, RunDirectoryError
from rmft.generators.devices import find_device
from rmft.generators.local import Session, head_of


def load_model(
    folder_or_id: str, precision: str, device: str, adapter: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model, ready to play, and its tokenizer, from a folder or a model hub ("owner/name").

    precision: float32 or bfloat16. device: see `find_device`. adapter: a folder of LoRA weights, added in
    float32 to the model's, which are of its precision. Raises ConfigError when the model is missing, damaged
    or of a kind that can't be played, and RunDirectoryError when the adapter is.
    """
    place = find_device(device)
    local = Path(folder_or_id).is_dir()
    dtype = getattr(torch, precision)
    try:
        with torch.random.fork_rng(devices=[]), no_progress_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder_or_id,
                dtype=dtype,
                local_files_only=local,
                trust_remote_code=False,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder_or_id, local_files_only=local, trust_remote_code=False
            )
        model, found = loaded
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError) as error:
        reason = _first_line(error)
        raise ConfigError(
            f"The model '{folder_or_id}' can't be loaded: {reason} Expected a folder with config.json, "
            "*.safetensors and a tokenizer, or a name on a model hub."
        ) from None
    if found["missing_keys"]:
        missing = ", ".join(sorted(found["missing_keys"])[:3])
        raise ConfigError(f"The model '{folder_or_id}' is damaged: it lacks the weights {missing}.")
    if adapter is not None:
        _merge(model, adapter)
    model = model.to(device=place, dtype=dtype).eval().requires_grad_(False)
    assert isinstance(model, PreTrainedModel)
    _check(model, folder_or_id)
    return model, tokenizer


class HeldModel:
    """A model that a process loads once: it has one adapter after another, and lends itself to be trained.

    adapter: the folder of the one that is merged into it now. Its own weights are kept beside it, so that
    nothing is left of an adapter. Raises as `load_model` does.
    """

    def __init__(self, folder_or_id: str, precision: str, device: str) -> None:
        self.model, self.tokenizer = load_model(folder_or_id, precision, device)
        self.adapter: Path | None = None
        self._place = self.model.device
        self._own: list[tuple[nn.Parameter, Tensor]] = []

    def adapt(self, adapter: Path | None) -> None:
        """Have this adapter and no other; None: none. Raises RunDirectoryError when it is damaged."""
        if self.model.device != self._place:
            _move(self.model, self._place)
        if adapter == self.adapter:
            return
        for weight, own in self._own:
            weight.data = own.to(self._place)
        self._own, self.adapter = [], None
        if adapter is not None:
            self._own = _merge(self.model, adapter)
            nn.Module.eval(self.model).requires_grad_(False)
            self.adapter = adapter

    def rest(self) -> None:
        """Leave a GPU's memory to others, until the next `adapt`."""
        self.adapt(None)
        _move(self.model, torch.device("cpu"))


def _move(model: nn.Module, place: torch.device) -> None:
    model.to(place)


def token_counter(folder_or_id: str) -> Callable[[str], int]:
    """How many tokens a text is to the tokenizer in a folder or on a model hub. Raises ConfigError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder_or_id, local_files_only=Path(folder_or_id).is_dir(), trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(f"There is no tokenizer '{folder_or_id}': {_first_line(error)}") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """transformers draws none within, and as before afterwards."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _merge(model: PreTrainedModel, adapter: Path) -> list[tuple[nn.Parameter, Tensor]]:
    """Merge an adapter into a model's weights, in float32; the weights that it changes, as they were.

    Those are on the CPU. Raises RunDirectoryError when the adapter does not fit, or is damaged.
    """
    own: list[tuple[nn.Parameter, Tensor]] = []
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's own use of transformers
            warnings.filterwarnings("error", "Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, str(adapter))
            for module in adapted.modules():
                if isinstance(module, BaseTunerLayer):
                    weight = module.get_base_layer().weight
                    assert isinstance(weight, nn.Parameter)
                    own.append((weight, weight.data.cpu()))
                    weight.data = weight.data.to(torch.float32, copy=True)
            adapted.merge_and_unload()
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError, UserWarning) as error:
        reason = _first_line(error)
        raise RunDirectoryError(
            f"The adapter in '{adapter}' does not fit the model, or is damaged: {reason}"
        ) from None
    for weight, before in own:
        weight.data = weight.data.to(before.dtype)
    return own


@torch.inference_mode()
def _check(model: PreTrainedModel, name: str) -> None:
    """A session must find what the model itself finds: some kinds of model compute more than it does."""
    size = head_of(model).out_features
    ids = [(7 * place + 3) % size for place in range(12)]
    expected = model(torch.tensor([ids], device=model.device)).logits[0, -1].double().softmax(dim=-1)
    try:
        session = Session(model, 1, len(ids))
        session.read([ids[:8]])
        session.read([ids[8:]])
        _, _, found = session.choose(np.arange(size), np.zeros(1))
        distance = np.abs(found[0] - expected.numpy(force=True)).sum() / 2
        why = f"probabilities are {distance:.2g} off"
    except (TypeError, AttributeError) as error:
        distance, why = np.inf, _first_line(error)
    if not distance <= (1e-3 if model.dtype == torch.float32 else 0.1):
        raise ConfigError(
            f"The model '{name}' is a {type(model).__name__}, which can't be played here ({why}). Take one "
            "whose layers all attend to every earlier token, such as Llama, Qwen, Gemma 2 or Phi-3."
        )
