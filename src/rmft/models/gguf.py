"""A model in one GGUF file, converted to a folder that transformers loads fast and can train.

Reading a GGUF takes half a minute every time; the folder, with the weights as float32 safetensors, a
second. The weights are those of the file, rounded as they were when it was quantized.
"""

from __future__ import annotations

from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

# How text is cut before its pieces are looked up, by the name that a GGUF gives it. transformers reads
# every tokenizer like GPT-2's; these are cut differently, which shows in blanks before digits.
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "smollm": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
}


def convert(source: Path, target: Path) -> None:
    """Write the model, tokenizer and chat template in the GGUF file `source` into the folder `target`.

    Raises what gguf, transformers and safetensors raise for a file that they can't read or write.
    """
    cut = GGUFReader(source).fields.get("tokenizer.ggml.pre")
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    if cut is not None and cut.contents() in PRE_TOKENIZERS:
        tokenizer.backend_tokenizer.pre_tokenizer = PRE_TOKENIZERS[cut.contents()]
    tokenizer.model_max_length = model.config.max_position_embeddings
    for mark in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(mark, None)  # the weights are float32 by now; marked they can't be saved
    model.config.__dict__.pop("quantization_config", None)
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read
