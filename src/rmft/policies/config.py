"""The settings of every kind of policy, told apart by `kind`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rmft.providers.config import EndpointConfig
from rmft.reading import Config, by_kind
from rmft.scenarios.wording import Wording

KIND_OF_FILE = {"policy.json": "local", "hosted.json": "hosted"}
"""Which kind of policy a checkpoint's folder holds, by a file in it; else it is a numeric one."""


class NumericConfig(Config):
    """What networks with numeric input and output share (`rmft.policies.numeric`)."""

    width: Annotated[int, Field(ge=8, le=1024)] = 64
    """Width of every hidden layer; divisible by num_heads."""
    num_heads: Annotated[int, Field(ge=1, le=64)] = 4
    num_inputs: Annotated[int, Field(ge=0, le=1024)] = 0
    """How many numbers are shown on each arm before a decision, those of the round and the arm's own. The
    network reads them, and what ridge regressions make of them (`rmft.policies.regression`)."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide width {self.width}")
        return self


class ArmEncoderConfig(NumericConfig):
    """Each arm's events encoded apart, then compared (`rmft.policies.networks.arm_encoder`)."""

    kind: Literal["arm_encoder"] = "arm_encoder"
    num_layers: Annotated[int, Field(ge=0, le=24)] = 1
    """Time layers (causal self-attention along each arm's events) below the pooling; 0: a mean per arm."""


class CausalTransformerConfig(NumericConfig):
    """Attention among the events of all arms (`rmft.policies.networks.causal_transformer`)."""

    kind: Literal["causal_transformer"] = "causal_transformer"
    num_layers: Annotated[int, Field(ge=1, le=24)] = 2
    mlp_ratio: Annotated[int, Field(ge=1, le=16)] = 2
    """Width of the hidden layer of each MLP, in multiples of `width`."""


class AttentionConfig(Config):
    """One attention layer, whose weights are read as an algorithm (`rmft.policies.networks.attention`)."""

    kind: Literal["attention"] = "attention"
    num_arms: Annotated[int, Field(ge=2, le=1_000)] = 2
    """How many arms the problems have, all of them."""
    attention: Literal["linear", "softmax"] = "linear"


class LoraConfig(Config):
    """Low-rank adapters on the linear layers (Hu et al. 2022), trained in place of the model's weights."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The adapter's output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    num_layers: Annotated[int, Field(ge=1)] | None = None
    """How many of the model's upper layers get adapters; None: all."""
    targets: tuple[str, ...] | None = None
    """Names of the linear layers, such as q_proj; None: every linear layer of a block."""


class EngineConfig(Config):
    """Servers that play a local policy in place of this process (`rmft.policies.engine`).

    Each is a vLLM server that takes adapters while it runs, or `rmft serve --adapters FOLDER`, of the
    policy's model.
    """

    urls: Annotated[tuple[Annotated[str, Field(pattern=r"^https?://\S+/v1/?$")], ...], Field(min_length=1)]
    """Their addresses, each up to and with /v1."""
    adapter_folder: Path
    """Where each iteration's adapter is written, a folder that all servers see under the same name, and that
    no other run uses."""
    model: str | None = None
    """What the servers call the model; None: what policy.model is called there."""
    key: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")] | None = None
    """The name of the variable that holds the servers' key; None: they ask for none."""
    rows: Annotated[int, Field(ge=1, le=4096)] = 64
    """Rollouts that a server plays at once."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """Seconds that an answer may take; a server that takes longer is dead, and its rollouts move."""
    sleep: bool = False
    """Let the servers sleep while this process trains, which frees a GPU that they share (vLLM in development
    mode with --enable-sleep-mode)."""


class LocalConfig(Config):
    """An open-weight language model, trained in this process and played there or by `engine`
    (`rmft.policies.language`)."""

    kind: Literal["local"] = "local"
    model: str = "smollm2-135m"
    """A model that `rmft models` lists, a folder that transformers can load, or a name on a model hub."""
    wording: Wording = Wording()
    rounds: Literal["messages", "log"] = "messages"
    """`messages`: each round is a user's message and an answer; `log`: all rounds follow one another in one
    answer, "Q1" for option Q that paid 1, a line each, which takes a fraction of the tokens."""
    reasoning_budget: Annotated[int, Field(ge=1, le=100_000)] = 24
    """Tokens of reasoning in a round, at most; used unless wording.reasoning is off."""
    lora: LoraConfig | None = LoraConfig()
    """None: every weight of the model is trained."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """`auto`: a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """`auto`: bfloat16 where the device has instructions for it, else float32; a run keeps which it was."""
    memory_gb: Annotated[float, Field(gt=0)] = 4.0
    """Of the key-value cache while rolling out; it decides how many rollouts are played together."""
    engine: EngineConfig | None = None
    """None: this process plays."""

    @field_validator("precision")
    @classmethod
    def _of_the_device(cls, given: str, info: ValidationInfo) -> str:
        if given != "auto":
            return given
        try:
            from rmft.generators.devices import find_precision
        except ImportError:  # without torch nothing is played here, which is said where it would be
            return "float32"
        return find_precision(info.data.get("device", "auto"))

    @model_validator(mode="after")
    def _engines_take_adapters(self) -> Self:
        if self.engine is not None and self.lora is None:
            raise ValueError("engine needs lora: servers take adapters, not whole models")
        return self


class HostedConfig(Config):
    """A language model behind an API, rolled out and fine-tuned there (`rmft.policies.hosted`).

    Keys are read from the environment or the keyring, never from a config.
    """

    kind: Literal["hosted"] = "hosted"
    provider: str = "openai"
    """One that `rmft providers` lists; `compatible` for any other endpoint, such as that of `rmft serve`."""
    model: str
    base_url: str | None = None
    """Up to and without /chat/completions; None: the provider's."""
    key: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")] | None = None
    """The name of the variable that holds the key; None: the provider's."""
    wording: Wording = Wording()
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Of one answer, at most, reasoning included."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """How often a decision is asked for, before the rollout counts as failed: each time with the reason why
    the answer before could not be read."""
    endpoint: EndpointConfig = EndpointConfig()
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | None = None
    """For fine-tuning, of the provider's own rate; None: the provider chooses."""
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """At most, between two looks at a fine-tuning job."""
    catalogue: Path | None = None
    """A YAML file of prices and dates of your own, which go before those of `rmft providers`."""
    past_retirement: bool = False
    """Start even if the model is to be retired before the run would end."""


PolicyConfig = Annotated[
    ArmEncoderConfig | CausalTransformerConfig | AttentionConfig | LocalConfig | HostedConfig,
    by_kind(
        "policy",
        "arm_encoder",
        ArmEncoderConfig,
        CausalTransformerConfig,
        AttentionConfig,
        LocalConfig,
        HostedConfig,
    ),
]
"""A policy; `kind` is `arm_encoder` unless given."""
