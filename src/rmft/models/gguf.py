"""A model in one GGUF file, converted to a folder that transformers loads fast and can train.

Reading a GGUF takes half a minute every time; the folder, with the weights as float32 safetensors, a
second. The weights are those of the file, rounded as they were when it was quantized.
"""

from __future__ import annotations

import string
from pathlib import Path

import gguf  # noqa: F401  which transformers needs, and misses late
import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase
from transformers import __version__ as transformers_version
from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS
from transformers.integrations.gguf.reader import read_gguf_metadata
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from rmft.errors import ConfigError

# How text is cut before its pieces are looked up, by the name that a GGUF gives it, where transformers does
# not know it: it then cuts like GPT-2, which shows in blanks before digits.
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "smollm": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
}
ANSWERS = string.ascii_uppercase + string.digits


def convert(source: Path, target: Path) -> None:
    """Write the model, tokenizer and chat template in the GGUF file `source` into the folder `target`.

    Raises ConfigError for a model that no policy could play with, and what gguf, transformers and safetensors
    raise for a file that they can't read or write.
    """
    metadata, _ = read_gguf_metadata(str(source), ())
    architecture = metadata["general.architecture"]
    if architecture not in (known := {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS}):
        raise ConfigError(
            f"it is of the architecture '{architecture}', which transformers {transformers_version} does not "
            f"read. Expected one of: {', '.join(sorted(known))}."
        )
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    if cut := PRE_TOKENIZERS.get(metadata.get("tokenizer.ggml.pre", "")):
        tokenizer.backend_tokenizer.pre_tokenizer = cut
    check_tokenizer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(mark, None)  # the weights are float32 by now; marked they can't be saved
    model.config.__dict__.pop("quantization_config", None)
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ConfigError where letters and digits are not single tokens, or there is no chat template."""
    start = tokenizer.encode("\n", add_special_tokens=False)
    for answer in ANSWERS:
        ids = tokenizer.encode(f"\n{answer}", add_special_tokens=False)
        if ids[:-1] != start:
            raise ConfigError(
                f"its tokenizer has no single token for the answer '{answer}' at the start of a line. "
                "Answers need one for every capital letter and digit."
            )
    if not tokenizer.chat_template:
        raise ConfigError(
            "it has no chat template, so it does not know turns. Choose a model that was trained for chats; "
            "their names often end in -Instruct or -it."
        )
