"""What several test modules share: the real language model that the product itself fetches."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from rmft.models.adding import add_model

settings.register_profile("untimed", deadline=None)  # no test asserts a time, on a busy machine either
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, fetched (94 MB) and converted when it is not there yet."""
    return add_model("smollm2-135m", say=print)


@pytest.fixture(scope="session")
def tiny_llama(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, named tiny, of a random two-layer Llama with SmolLM2's tokenizer."""
    import torch  # here, since most tests do without
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(smollm2, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=49152, max_position_embeddings=2048, initializer_range=0.2, **shape)
        config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 2
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
