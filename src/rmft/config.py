"""Every setting of a run, typed, documented and checked in one place.

A config is a YAML file with the keys of `RunConfig`; what is left out takes the default below. Wrong
names, types and ranges raise ConfigError, one line per mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from rmft.errors import ConfigError
from rmft.reading import Config, parse_yaml, read

SelectionKind = Literal[
    "lowest_regret", "lowest_regret_to_go", "excess_regret_to_go", "highest_reward", "random", "all"
]


class NumericConfig(Config):
    """What networks with numeric input and output share (`rmft.policies.numeric`)."""

    width: Annotated[int, Field(ge=8, le=1024)] = 64
    """Width of every hidden layer; divisible by num_heads."""
    num_heads: Annotated[int, Field(ge=1, le=64)] = 4

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


class Wording(Config):
    """How a problem is told in words (`rmft.scenarios`). The switches are independent of each other."""

    style: Literal["terse", "full"] = "terse"
    """`terse`: a handful of tokens per round; `full`: whole sentences."""
    hint: bool = False
    """Whether the policy is told that trying options and settling on good ones have to be balanced."""
    history: Literal["raw", "ranked", "summary"] = "raw"
    """`raw`: each round tells what just happened; `ranked`: the same, under full information with the option
    of the best total first; `summary`: also each option's count and mean so far."""
    answer: Literal["arm", "distribution"] = "arm"
    """`distribution` (full information only): how much of one unit goes on each option."""
    reasoning: Literal["off", "brief", "free"] = "off"
    """Whether the policy writes its own reasoning before each decision, and how long it is asked to be."""
    rewards: Literal["raw", "scaled"] = "raw"
    """`raw`: in the context's unit; `scaled`: from 0 to 10, "7.3 of 10" where whole sentences are told."""


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


class LocalConfig(Config):
    """An open-weight language model, played and trained in this process (`rmft.policies.language`)."""

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
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """`auto`: a GPU where there is one."""
    memory_gb: Annotated[float, Field(gt=0)] = 4.0
    """Of the key-value cache while rolling out; it decides how many rollouts are played together."""


class EndpointConfig(Config):
    """How an endpoint is asked. What it can do is probed once, where None, and then kept with the run."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rollouts under way at once."""
    retries: Annotated[int, Field(ge=0, le=100)] = 8
    """After a first attempt that timed out or found the endpoint busy, broken or incomprehensible."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds that one attempt may take."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    azure_api_version: str | None = None
    """Makes it an Azure OpenAI resource, at https://NAME.openai.azure.com."""
    temperature: bool | None = None
    """Whether it takes a temperature; models that reason on their own often take none."""
    seed: bool | None = None
    logprobs: bool | None = None
    structured: bool | None = None
    """Whether it holds answers to a JSON schema."""
    max_completion_tokens: bool | None = None
    """Whether it calls its limit so, instead of max_tokens."""


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


class BudgetConfig(Config):
    """What a run with hosted models may cost; it stops, to be resumed, before it would cost more."""

    max_usd: Annotated[float, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Read, written and trained on."""


def _kind(policy: Any) -> Any:
    return policy.get("kind", "arm_encoder") if isinstance(policy, dict) else getattr(policy, "kind", None)


PolicyConfig = Annotated[
    Annotated[ArmEncoderConfig, Tag("arm_encoder")]
    | Annotated[CausalTransformerConfig, Tag("causal_transformer")]
    | Annotated[LocalConfig, Tag("local")]
    | Annotated[HostedConfig, Tag("hosted")],
    Discriminator(
        _kind,
        custom_error_type="no_kind",
        custom_error_message=(
            "settings whose kind, arm_encoder, causal_transformer, local or hosted, is a policy's"
        ),
    ),
]
"""A policy, told apart by `kind`, which is `arm_encoder` unless given."""


class RolloutConfig(Config):
    """Steps 1 and 2 of the method: draw problems, roll out."""

    num_problems: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """M: problems drawn in each iteration."""
    num_rollouts: Annotated[int, Field(ge=1, le=100_000)] = 32
    """L: rollouts of each problem."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Divides the logits while rolling out for training. Evaluation always plays at 1."""


class SelectionConfig(Config):
    """Steps 3 and 4: score by regret, keep the lowest. See `rmft.selection` for each kind."""

    kind: SelectionKind = "lowest_regret"
    num_selected: Annotated[int, Field(ge=1)] = 4
    """k: rollouts kept per problem (for `lowest_regret_to_go`, per problem and round)."""
    discount: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How much each later round counts in the regret-to-go. `excess_regret_to_go` takes it as 0 under full
    information, where decisions change nothing later."""
    trace: Annotated[float, Field(ge=0, le=1)] = 1.0
    """For `excess_regret_to_go`: how much of the regret that followed is taken as it came (1: all)."""
    strength: Annotated[float, Field(gt=0, le=10)] = 1.0
    """For `excess_regret_to_go`: weight = -strength x excess in standard deviations, at most 5 in size."""

    unlearn: Annotated[float, Field(ge=0, le=5)] = 1.0
    """For `excess_regret_to_go`: the lowest weight is minus this. Below 5 it looks more at
    what went well than at what went badly, which favours decisions that may pay, or exploration."""
    every_arm: bool = False
    """For `excess_regret_to_go` under full information: learn from every arm, played or not, since what it
    would have paid is known."""

    @property
    def keeps_k(self) -> bool:
        """Whether `num_selected` counts for this kind."""
        return self.kind not in ("excess_regret_to_go", "all")


class TrainingConfig(Config):
    """Step 5: cross-entropy on the decisions that were kept."""

    anchor: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Weight of the cross-entropy to the probabilities that the decisions were drawn from, in every round
    of the kept trajectories: how firmly the policy is held where it was. 0 in the plain method."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the kept trajectories in each iteration."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Trajectories per optimizer step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """Peak rate of AdamW: reached after `warmup`, then falling as a cosine to 5% of it."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the iterations in which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    format: Annotated[float, Field(ge=0, le=100)] = 0.1
    """Language models: how much it counts that, without masking, an answer would be a legal one at all
    (minus the log of all legal answers' probability together). Which one it is counts as the weights say.
    1 with `lowest_regret` is plain cross-entropy over the whole vocabulary."""
    tokens_at_once: Annotated[int, Field(ge=1)] = 2048
    """Language models: tokens in one forward pass; gradients are accumulated over a batch's passes."""
    gradient_checkpointing: bool = False
    """Language models: compute activations again in the backward pass, which saves memory."""
    num_processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Language models: processes that share every optimizer step, each with a GPU of its own where there are
    some. Rollouts stay in one."""
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0


class ValidationConfig(Config):
    """How iterations are judged: on the suite's validation part, the same problems every time."""

    every: Annotated[int, Field(ge=1)] = 5
    """Iterations between two validations; the last iteration is always validated."""
    num_problems: Annotated[int, Field(ge=2, le=1_000_000)] = 500
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many validations in a row without a new best; None: never."""


class RunConfig(Config):
    """One run of Iterative RMFT."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "run"
    """Letters, digits, dots, dashes; names the run's directory."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    suite: str = "smoke"
    """A named suite (`rmft suites`) or the path of a YAML file."""
    iterations: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    policy: PolicyConfig = ArmEncoderConfig()
    rollout: RolloutConfig = RolloutConfig()
    selection: SelectionConfig = SelectionConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()
    budget: BudgetConfig = BudgetConfig()
    num_threads: Annotated[int, Field(ge=1, le=1024)] = 2
    """Threads of torch. Part of the result: other numbers round differently."""

    @field_validator("suite")
    @classmethod
    def _suite_is_named(cls, suite: str) -> str:
        if not suite.strip():
            raise ValueError("the name or path of a suite is empty")
        return suite

    @model_validator(mode="after")
    def _selected_of_rollouts(self) -> RunConfig:
        selected, rollouts = self.selection.num_selected, self.rollout.num_rollouts
        if self.selection.keeps_k and selected > rollouts:
            raise ValueError(
                f"selection.num_selected is {selected} but rollout.num_rollouts is only {rollouts}: "
                "keep at most as many as are rolled out"
            )
        if self.selection.kind == "excess_regret_to_go" and rollouts < 2:
            raise ValueError(
                "selection.kind excess_regret_to_go compares the rollouts of a problem: "
                f"rollout.num_rollouts is {rollouts}, needs at least 2"
            )
        hosted = isinstance(self.policy, HostedConfig)
        if hosted and (self.selection.kind == "excess_regret_to_go" or self.training.anchor):
            raise ValueError(
                "policy.kind hosted learns whole answers, each or not: choose a selection.kind other than "
                "excess_regret_to_go, such as lowest_regret_to_go, and leave training.anchor at 0"
            )
        if self.selection.every_arm and self.selection.kind != "excess_regret_to_go":
            raise ValueError(f"selection.every_arm goes with excess_regret_to_go, not {self.selection.kind}")
        if self.selection.every_arm and getattr(self.policy, "wording", Wording()).answer != "arm":
            raise ValueError(
                "selection.every_arm needs decisions that are one arm: set policy.wording.answer to arm"
            )
        if self.selection.kind == "excess_regret_to_go" and self.training.anchor == 0:
            raise ValueError(
                "selection.kind excess_regret_to_go has weights of both signs, which would drive the policy "
                "off without an anchor: set training.anchor, for instance to 1"
            )
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """The config in a YAML file, with `a.b=c` overrides on top. Raises ConfigError."""
    return parse_config(read_mapping(path), overrides, str(path))


def parse_config(
    values: Mapping[str, Any], overrides: list[str] | None = None, source: str = "config"
) -> RunConfig:
    """A checked config from nested mappings. Raises ConfigError naming `source`."""
    merged = dict(values)
    for override in overrides or []:
        _set(merged, override)
    return read(RunConfig, merged, source)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when it can't be read or is none."""
    try:
        values = parse_yaml(path.read_bytes(), f"'{path}'")
    except OSError as error:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f" Did you mean '{path.parent / near[0]}'?" if near else ""
        raise ConfigError(f"Can't read the config '{path}': {error.strerror or error}.{hint}") from None
    if not isinstance(values, dict):
        found = "an empty file" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"'{path}' holds {found}; expected settings such as 'suite: smoke'.")
    return values


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes KEY=VALUE such as rollout.num_rollouts=16; found '{override}'.")
    value = parse_yaml(text, f"--set {key}: the value '{text:.60}'")
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        inner = values.get(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: '{'.'.join(parents[: depth + 1])}' holds no settings.")
        values[parent] = dict(inner)
        values = values[parent]
    values[last] = value
