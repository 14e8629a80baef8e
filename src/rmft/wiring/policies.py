"""A policy from its folder, here or in a worker, and the optional packages that kinds of policy need."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rmft.errors import MissingExtraError
from rmft.policies.config import LocalConfig, PolicyConfig
from rmft.policies.demonstration import Demonstration
from rmft.rollout import Player
from rmft.types import Policy

if TYPE_CHECKING:
    from rmft.generators.loading import HeldModel
    from rmft.policies.engine import EnginePlayers

EXTRAS = {
    "torch": ("torch", "safetensors"),
    "api": ("openai", "httpx2"),
    "llm": ("torch", "safetensors", "transformers", "peft", "accelerate"),
    "serve": ("fastapi", "starlette", "uvicorn"),
    "gymnasium": ("gymnasium",),
    "ray": ("ray",),
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


def torch_threads(count: int) -> None:
    """Let torch use `count` threads. Raises MissingExtraError when torch is not installed.

    Waiting threads sleep unless the user says otherwise: when they spin, as by default, any other work on
    the machine makes small steps slower by a factor of ten and more.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with extra("torch"):
        import torch

    torch.set_num_threads(count)


def token_counter(name: str) -> Callable[[str], int]:
    """How many tokens a text is to the tokenizer of a model, in a folder or on the hub.

    Raises ConfigError, UnknownNameError, MissingExtraError.
    """
    with extra("llm"):
        from rmft.generators.loading import token_counter as counter_of
        from rmft.models.catalogue import find_model

    return counter_of(name if os.path.isdir(name) else find_model(name))


def load_policy(
    player: Player, held: HeldModel | None = None, players: EnginePlayers | None = None
) -> Policy:
    """The policy in a checkpoint's folder, or the baseline that plays in its place.

    held: a local policy's model, if that is loaded already. players: servers that play it. Raises
    RunDirectoryError when it is damaged, MissingExtraError.
    """
    path, temperature, sample_arms = player.policy.path, player.temperature, player.sample_arms
    if player.policy.kind == "local":
        with extra("llm"):
            from rmft.policies.language import load_language_policy

        if players is not None:
            policy = players.load(player)
        else:
            policy = load_language_policy(path, temperature, sample_arms=sample_arms, held=held)
        return policy if player.baseline is None else Demonstration(player.baseline, policy.state)
    if player.baseline is not None:
        return Demonstration(player.baseline)
    with extra("torch"):
        from rmft.policies.numeric import NumericPolicy, load_network

    return NumericPolicy(load_network(path)[0], temperature, sample_arms=sample_arms)


def loader(policy: PolicyConfig, num_threads: int) -> Callable[[Player], Policy]:
    """What loads policies of these settings in a worker, a local one's model only once."""
    torch_threads(num_threads)
    if not isinstance(policy, LocalConfig) or policy.lora is None:
        return load_policy
    with extra("llm"):
        from rmft.generators.loading import HeldModel
        from rmft.models.catalogue import find_model

    return partial(load_policy, held=HeldModel(find_model(policy.model), policy.precision, policy.device))
