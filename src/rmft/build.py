"""The one place where names in a config become objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rmft.config import HostedConfig, LocalConfig, RunConfig
from rmft.errors import ConfigError, MissingExtraError, RunDirectoryError
from rmft.evaluation.evaluate import evaluate as play
from rmft.messages import estimate_tokens
from rmft.policies.baselines.catalogue import (
    TUNED,
    baselines_for,
    describe,
    make_baseline,
    parse_spec,
)
from rmft.policies.baselines.reference import Oracle
from rmft.policies.baselines.tuning import tune
from rmft.problems.suites import PARTS, Suite
from rmft.providers.catalogue import find_provider
from rmft.rollout import MakePolicy
from rmft.run_directory import RunDirectory
from rmft.scenarios.scenario import draw_scenario
from rmft.types import Policy, PolicyRef, Trainer

if TYPE_CHECKING:
    from rmft.forecast import Line
    from rmft.hosting import HostedBackend
    from rmft.policies.network import Network


@dataclass
class FolderBackend:
    """A kind of policy that is kept in folders, as the loop needs it; see `rmft.iteration.Backend`."""

    config: RunConfig
    trainer: Trainer
    new_policy: Callable[[int, Path], PolicyRef]
    say: Callable[[str], None] = lambda _: None

    def start(self, target: Path, seed: int) -> PolicyRef:
        return self.new_policy(seed, target)

    def load(self, policy: PolicyRef, *, exploring: bool) -> Policy:
        temperature = self.config.rollout.temperature if exploring else 1.0
        return load_policy(policy, temperature, sample_arms=exploring)

    def close(self) -> None:
        """There is nothing to end."""


def backend(config: RunConfig, suite: Suite, folder: Path | None = None) -> FolderBackend | HostedBackend:
    """What trains and plays the config's kind of policy in the suite's problems.

    folder: the run's directory, where a hosted policy keeps what was paid for; others need none. Raises
    MissingExtraError, ConfigError when the problems can't be played by such a policy, and EndpointError.
    """
    policy, training = config.policy, config.training
    if isinstance(policy, HostedConfig):
        if folder is None:
            raise ConfigError("A hosted policy keeps what was paid for in its run's directory: give folder.")
        hosted = hosted_backend(config, policy, suite, folder, "answers.jsonl")
        hosted.check()
        return hosted
    torch_threads(config.num_threads)
    if isinstance(policy, LocalConfig):
        with extra("llm"):
            from rmft.policies.language import check
            from rmft.training import local
            from rmft.training.processes import inside

        if inside():
            raise ConfigError(
                "Found several processes of one run. Start 'rmft train' once, without torchrun or accelerate "
                "launch: with training.num_processes it starts those that train by itself."
            )
        check(policy, [setting.rules for part in PARTS for setting in suite.settings(part)])
        return FolderBackend(config, local.LocalTrainer(training, policy), partial(local.new_policy, policy))
    with extra("torch"):
        from rmft.training import transformer

    trainer = transformer.TransformerTrainer(training)
    return FolderBackend(config, trainer, partial(transformer.new_policy, policy))


def hosted_backend(
    config: RunConfig, policy: HostedConfig, suite: Suite, folder: Path, journal: str | None
) -> HostedBackend:
    """See `HostedBackend`; nothing is asked yet. Raises as `backend` does."""
    with extra("api"):
        from rmft.hosting import HostedBackend

    for part in PARTS:
        for setting in suite.settings(part):
            draw_scenario(setting.rules, 0, policy.wording)  # a wording that does not fit shows now
    return HostedBackend(config, policy, folder, journal)


def forecast_run(config: RunConfig, suite: Suite, calls: int, tokenizer: str | None) -> list[Line]:
    """What a run with a hosted model will cost; see `rmft.forecast`. calls: real ones, to base it on.

    tokenizer: a folder or name of one that transformers can load; None: 4 characters are a token.
    """
    policy = config.policy
    if not isinstance(policy, HostedConfig):
        raise ConfigError(f"--dry-run forecasts what hosted models cost; policy.kind is {policy.kind}.")
    with extra("api"):
        from rmft.forecast import Seen, forecast, see

    count: Callable[[str], int] = estimate_tokens
    if tokenizer is not None:
        with extra("llm"):
            from rmft.generators.local import token_counter

        count = token_counter(tokenizer)
    seen, facts = Seen(), find_provider(policy.provider, policy.catalogue).model(policy.model)
    if calls:
        with closing(hosted_backend(config, policy, suite, Path(), None)) as hosted:
            seen = see(hosted.model(policy.model, False), policy, suite, calls, count)
    return forecast(config, policy, suite, facts, count, seen)


def torch_threads(count: int) -> None:
    """Let torch use `count` threads. Raises MissingExtraError when torch is not installed.

    Waiting threads sleep unless the user says otherwise: when they spin, as by default, any other work on
    the machine makes small steps slower by a factor of ten and more.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with extra("torch"):
        import torch

    torch.set_num_threads(count)


EXTRAS = {
    "torch": ("torch", "safetensors"),
    "api": ("openai", "httpx2"),
    "llm": ("torch", "safetensors", "transformers", "peft", "trl", "accelerate", "datasets"),
    "serve": ("fastapi", "starlette", "uvicorn"),
}


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of the extra `name`: raises MissingExtraError when it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS[name]:
            raise
        raise MissingExtraError(name, error.name) from None


def load_policy(policy: PolicyRef, temperature: float = 1.0, *, sample_arms: bool = False) -> Policy:
    """The policy in a checkpoint's folder. Raises RunDirectoryError when it is damaged, MissingExtraError."""
    if policy.kind == "local":
        with extra("llm"):
            from rmft.policies.language import load_language_policy

        return load_language_policy(policy.path, temperature, sample_arms=sample_arms)
    with extra("torch"):
        from rmft.policies.transformer import TransformerPolicy, load_network

    network: Network = load_network(policy.path)[0]
    return TransformerPolicy(network, temperature, sample_arms=sample_arms)


def tuned(spec: str, suite: Suite, num_problems: int) -> str:
    """The spec that `tuned:NAME` stands for: chosen on the suite's validation part, nowhere else."""
    if not spec.startswith(TUNED):
        return spec
    chosen_on = suite.draw("validation", num_problems)
    return tune(spec, [(b.setting.rules, b.table, b.setting.regret_kind) for b in chosen_on], seed=0)


def baselines(specs: Iterable[str], suite: Suite) -> dict[str, MakePolicy]:
    """Baselines by name; `tuned:NAME` gets its parameters here. Raises UnknownNameError, ConfigError."""
    made: dict[str, MakePolicy] = {}
    for spec in specs:
        _check_suits(spec, suite)
        chosen = tuned(spec, suite, suite.validation.num_problems)
        name = chosen if chosen == spec else f"{TUNED}{chosen}"
        made[name] = _maker(chosen)
    return made


def _check_suits(spec: str, suite: Suite) -> None:
    name = describe(parse_spec(spec.removeprefix(TUNED))[0]).name
    for setting in (*suite.settings("validation"), *suite.settings("held_out")):
        suited = baselines_for(setting.rules)
        if name not in suited:
            raise ConfigError(
                f"The baseline '{name}' can't play '{setting.name}' of suite {suite.name} "
                f"({setting.feedback} feedback, rewards in {list(setting.rules.reward_range)}). "
                f"These can: {', '.join(suited)}."
            )


def _maker(spec: str) -> MakePolicy:
    if parse_spec(spec)[0] != Oracle.name:
        make_baseline(spec)  # a mistake shows now, before anything is played
    return lambda table: make_baseline(spec, table)


def best_baseline(run: RunDirectory, suite: Suite, say: Callable[[str], None]) -> tuple[str, float] | None:
    """The suite's best baseline on the run's validation problems and its regret, kept in the run."""
    kept = run.read_json("baselines.json")
    if kept is None:
        say(f"Playing {len(suite.baselines)} baselines on the validation problems, to compare with")
        policies = baselines([name for name in suite.baselines if name != "oracle"], suite)
        if not policies:
            return None
        problems = suite.draw("validation", run.config.validation.num_problems)
        overall = play(policies, problems, num_rollouts=1, seed=0).overall
        kept = {
            name: {key: overall[name].measures[key].model_dump() for key in ("regret", "suff_fail_freq")}
            for name in policies
        }
        run.write_json("baselines.json", kept)
    try:
        regrets = {name: float(measures["regret"]["mean"]) for name, measures in kept.items()}
        best = min(regrets, key=lambda name: regrets[name])
    except (ValueError, LookupError, TypeError):
        raise RunDirectoryError(
            f"'{run.path / 'baselines.json'}' is damaged; delete it, and 'rmft resume' plays them again."
        ) from None
    return best, regrets[best]
