"""Reading and writing with open-weight models, held against plain forward passes of the same models."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    TokenizersBackend,
)

from rmft.errors import ConfigError, RunDirectoryError, ShapeError
from rmft.generators.cache import ATTENTION
from rmft.generators.loading import load_model
from rmft.generators.local import Session, _sample, _sample_token, bytes_per_token, context_limit
from rmft.generators.tokens import Ends
from rmft.policies.config import LocalConfig
from rmft.types import IntArray

VOCABULARY, CONTEXT, ROWS, STOP = 60, 256, 6, 2
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": STOP,
    "initializer_range": 0.3,  # far from uniform
}
KINDS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SHAPE)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, head_dim=16, attn_logit_softcapping=2.0, final_logit_softcapping=5.0)
    ),
}


def new_model(kind: str = "llama") -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = KINDS[kind]()
    return model.eval()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Choice:
    row: int
    place: int  # where in the row's tokens it stands
    token: int
    logprob: float
    legal: IntArray | None


def told(row: int, index: int, size: int) -> list[int]:
    """What row `row` is told in round `index`; the rows of a pair are told the same at the start."""
    generator = np.random.default_rng([row // 2 if index == 0 else row, index])
    return generator.integers(
        3, size, generator.integers(20, 30) if index == 0 else 1 + (row + index) % 5
    ).tolist()


def stop_at(tokens: set[int], *, stands: bool = True) -> Ends:
    """Texts end with one of these tokens, or before it."""
    return lambda ids: stands if ids[-1] in tokens else None


def play(
    model: PreTrainedModel, rows: list[int], *, rounds: int = 4, budget: int = 5, fresh: bool = False
) -> tuple[Session, list[Choice]]:
    """`rounds` of being told, writing and choosing; `fresh`: each round with a session that reads it all."""
    size = model.config.vocab_size
    session = Session(model, len(rows), CONTEXT)
    choices = []
    for index in range(rounds):
        uniforms = np.stack([np.random.default_rng([row, index]).random(budget + 1) for row in rows])
        new = [told(row, index, size) for row in rows]
        if fresh:
            new = [before + now for before, now in zip(session.ids, new, strict=True)]
            session = Session(model, len(rows), CONTEXT)
        session.read(new)
        before = [len(ids) for ids in session.ids]
        said = session.write(budget, stop_at({STOP, 3, 4, 5, 6, 7}), uniforms[:, :-1])
        for row, wrote in enumerate(said):
            choices += [
                Choice(row, before[row] + step, token, log, None)
                for step, (token, log) in enumerate(zip(wrote.ids, wrote.logprobs, strict=True))
            ]
        legal = np.array([[8, 9, 10 + row] for row in rows])
        tokens, logs, _ = session.choose(legal, uniforms[:, -1])
        choices += [
            Choice(row, len(session.ids[row]) - 1, int(tokens[row]), float(logs[row]), legal[row])
            for row in range(len(rows))
        ]
    return session, choices


@torch.inference_mode()
def check_choices(model: PreTrainedModel, session: Session, choices: list[Choice]) -> None:
    """Every stored log probability is found again by one plain pass over the row's tokens."""
    logits = [model(torch.tensor([ids])).logits[0].double() for ids in session.ids]
    for choice in choices:
        assert session.ids[choice.row][choice.place] == choice.token
        found = logits[choice.row][choice.place - 1]
        legal = torch.arange(len(found)) if choice.legal is None else torch.from_numpy(choice.legal)
        among = found[legal].log_softmax(dim=-1)
        assert float(among[legal == choice.token]) == pytest.approx(choice.logprob, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_pass_finds_the_same_logprobs(kind: str) -> None:
    model = new_model(kind)
    session, choices = play(model, list(range(ROWS)))
    free = [choice for choice in choices if choice.legal is None]
    assert len(choices) - len(free) == 4 * ROWS
    assert ROWS < len(free) < 4 * 5 * ROWS  # some rows stopped before the budget was used up
    check_choices(model, session, choices)
    assert model.config._attn_implementation != ATTENTION


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_what_was_read_changes_no_token(kind: str) -> None:
    model = new_model(kind)
    kept, _ = play(model, list(range(ROWS)))
    fresh, _ = play(model, list(range(ROWS)), fresh=True)
    assert kept.ids == fresh.ids


def test_a_row_is_the_same_in_any_batch() -> None:
    model = new_model()
    together, _ = play(model, list(range(ROWS)))
    alone = [play(model, [row])[0].ids[0] for row in range(ROWS)]
    assert together.ids == alone
    assert play(model, [4, 1])[0].ids == [alone[4], alone[1]]


def count_tokens(model: PreTrainedModel) -> list[int]:
    """A list that grows by the number of tokens that the model computes in each pass."""
    counts: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _model, _args, kwargs: counts.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return counts


def test_rows_with_the_same_tokens_are_computed_once_and_padding_never() -> None:
    model = new_model()
    counts = count_tokens(model)
    session = Session(model, 5, 64)
    session.read([[5, 6, 7], [5, 6, 7], [8, 9], [5, 6, 7], [8, 9]])
    tokens, _, probabilities = session.choose(np.array([10, 11]), np.array([0.0, 0.0, 0.0, 1 - 1e-9, 0.0]))
    assert counts == [5]
    assert tokens.tolist() == [10, 10, 10, 11, 10]
    np.testing.assert_array_equal(probabilities[[0, 2]], probabilities[[1, 4]])
    session.read([[12], [12], [12], [12], [13, 14]])  # rows 0 and 1 are still the same, 2 and 4 no more
    assert counts == [5, 2 + 2 + 2 + 3]
    one, *others = session.choose(np.arange(3, VOCABULARY), np.full(5, 0.5))[2]
    np.testing.assert_array_equal(one, others[0])
    with torch.inference_mode():
        logits = model(torch.tensor([[5, 6, 7, 11, 12]])).logits[0, -1, 3:].double().softmax(dim=-1)
    np.testing.assert_allclose(others[2], logits.numpy(), atol=1e-5)


def test_rows_that_are_rewound_to_the_same_tokens_are_computed_once_again() -> None:
    model = new_model()
    session = Session(model, 3, 64)
    session.read([[5, 6, 7], [5, 6, 8, 9], [5, 7, 7, 7]])
    for row in range(3):
        session.rewind(row, 2)
    session.rewind(0, 2)  # nothing is forgotten
    counts = count_tokens(model)
    session.read([[10, 11], [10, 11], [10, 11]])
    assert counts == [4]
    found = session.logits(np.arange(3)).log_softmax(dim=-1)
    assert torch.equal(found[0], found[1])
    with torch.inference_mode():
        whole = [model(torch.tensor([[5, second, 10, 11]])).logits[0, -1] for second in (6, 7)]
    assert torch.allclose(found[[0, 2]], torch.stack(whole).log_softmax(dim=-1), atol=1e-5)


@pytest.mark.parametrize("stands", [True, False])
def test_a_row_ends_with_a_token_or_before_it_and_every_token_is_read_once(stands: bool) -> None:
    model = new_model()
    counts = count_tokens(model)
    session = Session(model, 4, 64)
    session.read([[5], [6], [7], [8]])
    stops = set(range(0, VOCABULARY, 7))
    said = session.write(6, stop_at(stops, stands=stands), np.random.default_rng(0).random((4, 6)))
    assert {wrote.ended for wrote in said} == {True, False}
    for wrote in said:
        is_stop = [token in stops for token in wrote.ids]
        assert len(wrote.logprobs) == len(wrote.ids)
        assert (
            is_stop == [False] * (len(is_stop) - 1) + [True] if wrote.ended and stands else not any(is_stop)
        )
        assert wrote.ended or len(wrote.ids) == 6
    assert session.ids == [[5 + row, *said[row].ids] for row in range(4)]
    session.read([[9]] * 4)
    assert sum(counts) == sum(map(len, session.ids))


def test_a_pass_is_cut_into_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_model()
    whole, _ = play(model, list(range(ROWS)))
    monkeypatch.setattr("rmft.generators.local.TOKENS_AT_ONCE", 7)
    counts = count_tokens(model)
    parts, _ = play(model, list(range(ROWS)))
    assert parts.ids == whole.ids
    assert max(counts[ROWS:]) <= 7


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_choices_have_the_model_s_probabilities(temperature: float) -> None:
    model, size = new_model(), 4000
    legal = np.array([20, 7, 33])
    with torch.inference_mode():
        logits = model(torch.tensor([[5, 6, 7]])).logits[0, -1].double() / temperature
    expected = logits[legal].softmax(dim=-1).numpy()
    session = Session(model, size, 8)
    session.read([[5, 6, 7]] * size)
    tokens, logs, probabilities = session.choose(legal, (np.arange(size) + 0.5) / size, temperature)
    np.testing.assert_allclose(probabilities, np.tile(expected, (size, 1)), atol=1e-6)
    np.testing.assert_allclose([(tokens == token).mean() for token in legal], expected, atol=1 / size + 1e-6)
    place = np.array([np.flatnonzero(legal == token)[0] for token in tokens])
    np.testing.assert_allclose(logs, np.log(expected)[place], atol=1e-5)
    written = Session(model, size, 8)
    written.read([[5, 6, 7]] * size)
    said = np.array(
        [
            each.ids[0]
            for each in written.write(1, stop_at(set()), (np.arange(size)[:, None] + 0.5) / size, temperature)
        ]
    )
    found = np.bincount(said, minlength=VOCABULARY) / size
    np.testing.assert_allclose(found, logits.softmax(dim=-1).numpy(), atol=1 / size + 1e-6)


def test_a_uniform_of_zero_takes_the_first_token_that_can_be_and_of_nearly_one_the_last() -> None:
    logits = torch.tensor([[-1e4, 0.0, 0.0, -1e4]]).repeat(2, 1)
    picks, _, probabilities = _sample(logits, np.array([0.0, np.nextafter(1.0, 0.0)]), 1.0)
    assert picks.tolist() == [1, 2]
    assert probabilities.tolist() == [[0.0, 0.5, 0.5, 0.0]] * 2


@pytest.mark.parametrize("size", [5, 256, 1000, 49_153])
@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_tokens_are_drawn_by_blocks_as_they_would_be_at_once(size: int, temperature: float) -> None:
    logits = 4 * torch.randn(64, size, generator=torch.Generator().manual_seed(size))
    logits[:, 0] = logits[:, -1] = -torch.inf
    uniforms = np.random.default_rng(size).random(64)
    uniforms[:2] = 0.0, np.nextafter(1.0, 0.0)
    picks, logs = _sample_token(logits, uniforms, temperature)
    expected, expected_logs, probabilities = _sample(logits, uniforms, temperature)
    assert (probabilities.numpy()[np.arange(64), picks] > 0).all()
    assert (picks[2:] == expected[2:]).all()
    assert np.allclose(logs[2:], expected_logs[2:], atol=3e-6)


def test_what_does_not_fit_is_refused() -> None:
    model = new_model()
    with pytest.raises(ConfigError, match=r"257 tokens .* 256 at most"):
        Session(model, 1, CONTEXT + 1)
    session = Session(model, 2, 4)
    with pytest.raises(ShapeError, match="for 1 rows; expected 2"):
        session.read([[5]])
    with pytest.raises(ConfigError, match=r"5 tokens, more than the 4"):
        session.read([[5], [5, 6, 7, 8, 9]])


def test_the_context_ends_where_the_model_would_see_less_or_differently() -> None:
    assert context_limit(new_model()) == CONTEXT
    windowed = Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=16, sliding_window=100))
    assert context_limit(windowed) == 100
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 4.0}
    longer = Phi3Config(**SHAPE, original_max_position_embeddings=64, rope_parameters=scaling)
    assert context_limit(Phi3ForCausalLM(longer)) == 64


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_per_token_are_those_of_the_cache(kind: str) -> None:
    model = new_model(kind)
    session = Session(model, 3, 50)
    session.read([[5], [6], [7]])
    stored = sum(tensor.nbytes for layer in session._cache._layers.values() for tensor in layer)
    assert stored == 3 * 50 * bytes_per_token(model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model and a tokenizer, as files."""
    target = tmp_path / "model"
    new_model().save_pretrained(target)
    words = WordLevel({f"w{token}": token for token in range(VOCABULARY)}, unk_token="w0")
    TokenizersBackend(tokenizer_object=Tokenizer(words), eos_token="w2").save_pretrained(target)
    return target


def with_adapter(make: Callable[[], PeftModel]) -> PeftModel:
    """What `make` makes; torch's generator left alone, and a warning about peft itself not raised."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return make()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    target = tmp_path / "adapter"
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    with_adapter(lambda: get_peft_model(new_model(), config)).save_pretrained(target)
    return target


def test_a_model_is_loaded_ready_to_play(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = torch.random.get_rng_state()
    model, tokenizer = load_model(str(folder), "float32", "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.training
    assert model.dtype == torch.float32
    assert tokenizer.eos_token_id == STOP
    assert play(model, [0, 1])[0].ids == play(new_model(), [0, 1])[0].ids
    assert load_model(str(folder), "bfloat16", "auto")[0].dtype == torch.bfloat16
    assert capfd.readouterr().err == ""


@torch.inference_mode()
def test_an_adapter_is_merged_into_the_weights(folder: Path, adapter: Path) -> None:
    ids = torch.tensor([[5, 6, 7]])
    trained = with_adapter(lambda: PeftModel.from_pretrained(new_model(), str(adapter)))
    expected = trained.eval()(input_ids=ids).logits
    before = torch.random.get_rng_state()
    model, _ = load_model(str(folder), "float32", "cpu", adapter)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert type(model) is LlamaForCausalLM
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=0)
    assert (expected - new_model()(ids).logits).abs().max() > 0.1
    assert load_model(str(folder), "bfloat16", "cpu", adapter)[0].dtype == torch.bfloat16


def test_a_model_that_is_missing_or_damaged_says_so(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ConfigError, match="can't be loaded"):
        load_model(str(folder), "float32", "cpu")
    state = new_model().state_dict()
    del state["model.norm.weight"]
    new_model().save_pretrained(folder, state_dict=state)
    with pytest.raises(ConfigError, match=r"damaged: it lacks the weights model\.norm\.weight"):
        load_model(str(folder), "float32", "cpu")
    weights.write_bytes(whole)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="can't be loaded"):
        load_model(str(folder), "float32", "cpu")
    weights.unlink()
    with pytest.raises(ConfigError, match=r"can't be loaded.*Expected a folder with config\.json"):
        load_model(str(folder), "float32", "cpu")


def test_an_adapter_that_is_missing_or_does_not_fit_says_so(
    folder: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunDirectoryError, match="does not fit the model, or is damaged"):
        load_model(str(folder), "float32", "cpu", tmp_path)
    weights = adapter / "adapter_model.safetensors"
    save_file(dict(list(load_file(weights).items())[1:]), weights)
    with pytest.raises(RunDirectoryError, match="damaged: Found missing adapter keys"):
        load_model(str(folder), "float32", "cpu", adapter)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RunDirectoryError, match="does not fit the model, or is damaged"):
        load_model(str(folder), "float32", "cpu", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["nothing"]}))
    with pytest.raises(RunDirectoryError, match="does not fit the model, or is damaged"):
        load_model(str(folder), "float32", "cpu", adapter)


def test_a_kind_of_model_that_computes_more_than_a_session_is_refused(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=8.0)).save_pretrained(folder)
    with pytest.raises(ConfigError, match="GraniteForCausalLM, which can't be played"):
        load_model(str(folder), "float32", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"device is 'cuda:1', but torch finds none here.*cpu"):
        load_model(str(folder), "float32", "cuda:1")


@pytest.mark.parametrize(
    ("instructions", "precision"),
    [({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")],
)
def test_the_precision_is_that_which_the_device_has_instructions_for(
    instructions: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    config = LocalConfig.model_validate({"precision": "auto", "device": "cpu"})
    assert config.precision == precision  # so that a run keeps it
    assert LocalConfig.model_validate(config.model_dump()) == config
    monkeypatch.setitem(sys.modules, "rmft.generators.devices", None)  # as where there is no torch
    assert LocalConfig.model_validate({"precision": "auto"}).precision == "float32"


@pytest.mark.slow
def test_smollm2_is_scored_the_same_by_a_plain_pass(smollm2: Path) -> None:
    model, _ = load_model(str(smollm2), "float32", "cpu")
    session, choices = play(model, list(range(ROWS)))
    check_choices(model, session, choices)


MEMORY = """
import sys, resource, numpy as np
from rmft.generators.loading import load_model
from rmft.generators.local import Session
model, _ = load_model(sys.argv[1], "float32", "cpu")
session = Session(model, 64, 1000)
session.read([list(range(100, 1080))] * 64)
session.choose(np.array([45, 46, 47, 48]), np.linspace(0, 1, 64, endpoint=False))
session.read([list(range(100 + row, 119 + row)) for row in range(64)])
assert all(len(ids) == 1000 for ids in session.ids)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_64_rows_of_1000_tokens_of_smollm2_take_at_most_6_gb(smollm2: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, str(smollm2)], capture_output=True, text=True, check=True
    )
    assert 2.9 < float(found.stdout) <= 6.0
