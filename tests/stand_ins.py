"""Tokenizers like those of models that are not here: few tokens, their own rules and chat templates."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SYSTEM = "Five buttons, 20 rounds.\nAnswer with one letter: K, T, Q, Z or B."
TALK = ["Your choice?", "K", "0.7", "T", "K paid 1 click.\n\nAnd now?", "K"]
TEXT = [
    SYSTEM,
    *TALK,
    "system user assistant model think 0123456789 abcdefghijklmnopqrstuvwxyz <|> '.,_/",
    f"\nChoice:\n**Choice:** Choice:\n\n{' '.join(string.ascii_uppercase)} {string.ascii_uppercase}=",
]
SPOILT = [": K", ":**", ":\n\n", ": ", "Choice: K", "</think>Choice:", ":)"]
"""Tokens that nothing is encoded as and a model can write all the same: the mark's end with more."""
SMOLLM2 = (  # as it is in the model's GGUF
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def template(name: str) -> str:
    """A model's real chat template, from the collection that comes with trl (found without importing it)."""
    spec = find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text()


def with_tokens(core: Tokenizer, texts: Sequence[str], blanks: dict[str, str]) -> Tokenizer:
    """The same with these texts as tokens, which no merge makes. blanks: how its tokens write them."""
    whole = json.loads(core.to_str())
    vocabulary = whole["model"]["vocab"]
    for text in texts:
        token = "".join(blanks.get(letter, letter) for letter in text)
        vocabulary.setdefault(token, len(vocabulary))
    return Tokenizer.from_str(json.dumps(whole))


def byte_level(
    special: list[str], words: list[str], chat_template: str, eos: str, pattern: str = GPT2
) -> PreTrainedTokenizerBase:
    """A tokenizer like those of Qwen and SmolLM2. words: added tokens that are not special."""
    core = Tokenizer(BPE())
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_alone]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXT * 4, BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    core = with_tokens(core, SPOILT, {" ": "Ġ", "\n": "Ċ"})
    core.add_special_tokens(special)
    core.add_tokens(words)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, chat_template=chat_template)


def with_bos(core: Tokenizer, bos: str) -> None:
    core.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
    )


def smollm2_like() -> PreTrainedTokenizerBase:
    return byte_level(CHATML, [], SMOLLM2, "<|im_end|>")


def qwen3() -> PreTrainedTokenizerBase:
    words = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
    return byte_level(CHATML, words, template("qwen3"), "<|im_end|>", QWEN)


def llama3() -> PreTrainedTokenizerBase:
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    made = byte_level(special, [], template("llama3_2"), "<|eot_id|>")
    with_bos(made.backend_tokenizer, "<|begin_of_text|>")
    made.bos_token = "<|begin_of_text|>"
    return made


def deepseek_r1() -> PreTrainedTokenizerBase:
    """Its template opens the thought."""
    return byte_level(CHATML, [], template("deepseek_r1_distill"), "<|im_end|>")


def sentencepiece(normalizer: normalizers.Normalizer) -> Tokenizer:
    """A tokenizer like those of Gemma and Phi-3.5, whose tokens begin with a blank or hold none."""
    core = Tokenizer(BPE(unk_token="<unk>"))
    core.normalizer = normalizer
    core.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    core.train_from_iterator(
        [*TEXT, "\t"], BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False)
    )
    core = with_tokens(core, SPOILT, {" ": "▁"})
    core.pre_tokenizer = None
    return core


def gemma(version: str) -> PreTrainedTokenizerBase:
    core = sentencepiece(normalizers.Replace(" ", "▁"))
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens(["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"])
    core.add_tokens([AddedToken(text, normalized=False) for text in ("\n", "\n\n", "▁▁", "<h1>")])
    with_bos(core, "<bos>")
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", chat_template=template(version)
    )


def phi3_5() -> PreTrainedTokenizerBase:
    prefix = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    core = sentencepiece(normalizers.Sequence(prefix))
    blank = decoders.Strip(" ", 1, 0)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), blank]
    )
    core.add_special_tokens(["<s>", "<|endoftext|>"])
    roles = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    core.add_special_tokens([AddedToken(role, rstrip=True, normalized=False) for role in roles])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="<|endoftext|>", chat_template=template("phi3_5")
    )
