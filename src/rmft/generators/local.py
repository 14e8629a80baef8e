"""Open-weight language models in this process: loading one, and reading and writing with it in batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from rmft.errors import ConfigError, RunDirectoryError, ShapeError
from rmft.generators.cache import ATTENTION, RowCache
from rmft.types import FloatArray, IntArray

TOKENS_AT_ONCE = 4096  # in one pass: bounds the memory of activations

Ends = Callable[[list[int]], bool | None]
"""Whether a text ends with the last of its tokens: None where it goes on, False where it ends before it."""


@dataclass(slots=True)
class Written:
    """What a row wrote: its tokens, their log probabilities, and whether it ended before its budget did."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False


class Session:
    """A batch of rows that a model reads and writes in lock-step; what was read is never read again.

    ids: one list per row of all tokens so far. The last one that was chosen or written may not be read
    yet: that happens at the next call. max_tokens: as many as a row may ever have. Results depend on a
    row's own tokens and uniforms only, up to rounding. Raises ConfigError when a row gets longer than
    max_tokens, or max_tokens is more than the model reads.
    """

    def __init__(self, model: PreTrainedModel, num_rows: int, max_tokens: int) -> None:
        limit = context_limit(model)
        if max_tokens > limit:
            raise ConfigError(
                f"A row of {max_tokens:,} tokens is asked for, but the model reads {limit:,} at most. "
                "Shorten the horizon, the wording or the reasoning, or take a model with a longer context."
            )
        head = head_of(model)
        self._model, self._head = model, head
        self._softcap: float | None = getattr(model.config, "final_logit_softcapping", None)
        self._cache = RowCache(num_rows, max_tokens, model.device)
        self._hidden = torch.zeros(num_rows, head.in_features, dtype=model.dtype, device=model.device)
        # Rows with equal ids have read identical tokens, so one of them is computed and the others copied.
        self._prefix_id = np.zeros(num_rows, dtype=np.int64)
        self._last_prefix_id = 0
        self.ids: list[list[int]] = [[] for _ in range(num_rows)]

    def read(self, told: Sequence[Sequence[int]]) -> None:
        """Append told[i] to row i, and read all that is not read yet in one pass."""
        if len(told) != len(self.ids):
            raise ShapeError(f"Found tokens for {len(told)} rows; expected {len(self.ids)}.")
        for ids, new in zip(self.ids, told, strict=True):
            ids.extend(new)
        self._catch_up()

    @torch.inference_mode()
    def choose(
        self, legal: IntArray, uniforms: FloatArray, temperature: float = 1.0
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """Append to each row one token out of `legal`, (C,) or (B, C), by inverse CDF at uniforms (B,).

        Returns the tokens (B,), their log probabilities (B,) and those of all legal ones, as
        probabilities (B, C), each among the legal tokens only.
        """
        self._catch_up()
        rows = len(self.ids)
        legal = np.broadcast_to(legal, (rows, legal.shape[-1]))
        index = torch.tensor(legal, device=self._hidden.device)
        logits = torch.einsum("bd,bcd->bc", self._hidden.float(), self._head.weight[index].float())
        if self._head.bias is not None:
            logits = logits + self._head.bias[index].float()
        picks, logprobs, probabilities = _sample(self._capped(logits), uniforms, temperature)
        ids = legal[np.arange(rows), picks]
        for row, token in zip(self.ids, ids.tolist(), strict=True):
            row.append(token)
        return ids, logprobs, probabilities.numpy(force=True)

    @torch.inference_mode()
    def write(self, budget: int, ends: Ends, uniforms: FloatArray, temperature: float = 1.0) -> list[Written]:
        """Let each row write freely, until `ends` says so of its new tokens or there are `budget` of them.

        uniforms: (B, budget), one for each token. The token by which a row ends is one of its tokens, unless
        `ends` says that it must not stand: then it is as if it had not been written.
        """
        wrote = [Written() for _ in self.ids]
        active = list(range(len(wrote)))
        for step in range(budget):
            if not active:
                break
            self._catch_up()
            rows = np.array(active)
            logits = self._capped(self._head(self._hidden[torch.from_numpy(rows)]).float())
            tokens, logprobs, _ = _sample(logits, uniforms[rows, step], temperature)
            for row, token, logprob in zip(rows.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
                one = wrote[row]
                stands = ends([*one.ids, token])
                if stands is not False:
                    one.ids.append(token)
                    one.logprobs.append(logprob)
                    self.ids[row].append(token)
                one.ended = stands is not None
            active = [row for row in active if not wrote[row].ended]
        return wrote

    @torch.inference_mode()
    def logits(self, rows: IntArray) -> Tensor:
        """Of the next token of each of `rows`, (n, V), float32; to go on, `read` what was made of them."""
        self._catch_up()
        index = torch.from_numpy(rows).to(self._hidden.device)
        return self._capped(self._head(self._hidden[index]).float())

    @torch.inference_mode()
    def _catch_up(self) -> None:
        """Read every row's unread tokens. Rows that hold the same ones are computed once, then copied."""
        lengths = self._cache.lengths
        groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for row, ids in enumerate(self.ids):
            if len(ids) > self._cache.max_tokens:
                raise ConfigError(
                    f"A row has {len(ids):,} tokens, more than the {self._cache.max_tokens:,} made room for."
                )
            if new := tuple(ids[lengths[row] :]):
                groups.setdefault((int(self._prefix_id[row]), new), []).append(row)
        todo = [(rows, new) for (_, new), rows in groups.items()]
        while todo:
            size, now = 0, list[tuple[list[int], tuple[int, ...]]]()
            while todo and (not now or size + len(todo[0][1]) <= TOKENS_AT_ONCE):
                now.append(todo.pop(0))
                size += len(now[-1][1])
            self._pass(now)

    def _pass(self, groups: list[tuple[list[int], tuple[int, ...]]]) -> None:
        """Read the same new tokens into the rows of each group, computing its first row only."""
        firsts = np.array([rows[0] for rows, _ in groups])
        counts = np.array([len(new) for _, new in groups])
        starts = self._cache.lengths[firsts]
        device = self._hidden.device
        positions = self._cache.begin(firsts, counts)
        tokens = torch.tensor([token for _, new in groups for token in new], device=device)
        with _row_attention(self._model):
            read = self._model.base_model(
                input_ids=tokens[None], position_ids=positions[None], use_cache=False, cache=self._cache
            )
        hidden = read.last_hidden_state[0, torch.from_numpy(np.cumsum(counts) - 1).to(device)]
        for (rows, new), start, last in zip(groups, starts.tolist(), hidden, strict=True):
            if len(rows) > 1:
                self._cache.copy(rows[0], rows[1:], start, start + len(new))
            self._hidden[torch.tensor(rows, device=device)] = last
            self._last_prefix_id += 1
            self._prefix_id[rows] = self._last_prefix_id

    def _capped(self, logits: Tensor) -> Tensor:
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap


def _sample(logits: Tensor, uniforms: FloatArray, temperature: float) -> tuple[IntArray, FloatArray, Tensor]:
    """Inverse CDF: indices (B,), their log probabilities (B,), and all probabilities (B, C)."""
    if logits.device.type == "mps":  # which has no float64
        logits = logits.cpu()
    probabilities = logits.double().div_(temperature).softmax(dim=-1)
    edges = probabilities.cumsum(dim=-1)
    draws = torch.tensor(uniforms, device=edges.device)[:, None] * edges[:, -1:]
    picks = torch.searchsorted(edges, draws, right=True).clamp_(max=edges.shape[1] - 1)
    logs = probabilities.gather(1, picks).log()
    return picks[:, 0].numpy(force=True), logs[:, 0].numpy(force=True), probabilities


@contextmanager
def _row_attention(model: PreTrainedModel) -> Iterator[None]:
    """The model attends through its rows' cache within, and as before afterwards."""
    own = model.config._attn_implementation
    model.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = own


def head_of(model: PreTrainedModel) -> nn.Linear:
    """The linear layer from hidden states to logits. Raises ConfigError when there is none."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Linear):
        raise ConfigError(
            f"A {type(model).__name__} has no linear layer that gives logits; it can't be played."
        )
    return head


def context_limit(model: PreTrainedModel) -> int:
    """How many tokens of context the model reads exactly as it was trained to.

    Its positions; its sliding window where it has one, as all of a row is kept in view; and where the
    embedding of positions changes with length (as in Phi-3.5), the length at which it does.
    """
    config = model.config
    limits = [config.max_position_embeddings]
    window = getattr(config, "sliding_window", None)
    limits += [window] if window else []
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        limits += [rope.get("original_max_position_embeddings") or config.original_max_position_embeddings]
    return int(min(limits))


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The tokens that end a text, as the model's generation config lists them."""
    named = model.generation_config.eos_token_id if model.generation_config else None
    return [] if named is None else [named] if isinstance(named, int) else list(named)


def bytes_per_token(model: PreTrainedModel) -> int:
    """Of the keys and values of one token in one row, over all layers."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * width * model.dtype.itemsize)


def find_device(name: str) -> torch.device:
    """`auto`: a GPU where there is one. Raises ConfigError for a device that is not there."""
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if found["cuda"] else "mps" if found["mps"] else "cpu")
    if not found.get(name.partition(":")[0], False):
        there = ", ".join(kind for kind, is_there in found.items() if is_there)
        raise ConfigError(
            f"device is '{name}', but torch finds none here. Set it to auto, or to one of: {there}."
        )
    return torch.device(name)


def load_model(
    folder_or_id: str, precision: str, device: str, adapter: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model, ready to play, and its tokenizer, from a folder or a model hub ("owner/name").

    precision: float32 or bfloat16. device: see `find_device`. adapter: a folder of LoRA weights, merged
    into the model's in float32. Raises ConfigError when the model is missing, damaged or of a kind that
    can't be played, and RunDirectoryError when the adapter is.
    """
    place = find_device(device)
    local = Path(folder_or_id).is_dir()
    dtype = torch.float32 if adapter is not None else getattr(torch, precision)
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
        model = _merged(model, adapter)
    model = model.to(device=place, dtype=getattr(torch, precision)).eval().requires_grad_(False)
    assert isinstance(model, PreTrainedModel)
    _check(model, folder_or_id)
    return model, tokenizer


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


def _merged(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's own use of transformers
            warnings.filterwarnings("error", "Found missing adapter keys")
            merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError, UserWarning) as error:
        reason = _first_line(error)
        raise RunDirectoryError(
            f"The adapter in '{adapter}' does not fit the model, or is damaged: {reason}"
        ) from None
    assert isinstance(merged, PreTrainedModel)
    return merged


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
    except (TypeError, AttributeError):
        distance = np.inf
    if not distance <= (1e-3 if model.dtype == torch.float32 else 0.1):
        raise ConfigError(
            f"The model '{name}' is a {type(model).__name__}, which can't be played here. Take one whose "
            "layers all attend to every earlier token, such as Llama, Qwen, Gemma 2 or Phi-3."
        )
