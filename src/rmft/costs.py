"""What a run will take, before it starts: a forecast by its kind of policy, and the budget of a paid one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rmft.config import RunConfig
from rmft.errors import ConfigError
from rmft.improve import roll_out
from rmft.messages import estimate_tokens
from rmft.policies.config import HostedConfig, LocalConfig
from rmft.problems.suites import Suite
from rmft.providers.catalogue import find_provider
from rmft.rollout import Player
from rmft.wiring.backends import backend, hosted_backend
from rmft.wiring.policies import extra, token_counter

if TYPE_CHECKING:
    from rmft.forecast import Line
    from rmft.forecast_local import Work


def check_budget(config: RunConfig) -> None:
    """Raises ConfigError when a run may cost money without a limit that its user has thought of."""
    policy, budget = config.policy, config.budget
    if not isinstance(policy, HostedConfig) or policy.provider == "compatible":
        return
    if budget.max_usd is None and budget.max_tokens is None:
        raise ConfigError(
            f"A run at {policy.provider} costs money, and no budget is set. See what it would come to with "
            "'rmft train CONFIG --dry-run', then set budget.max_usd or budget.max_tokens, or train with "
            "--no-budget."
        )


def forecast_run(
    config: RunConfig, suites: Mapping[str, Suite], calls: int, tokenizer: str | None
) -> list[Line]:
    """What a run with a hosted model will cost; see `rmft.forecast`. calls: real ones, to base it on.

    tokenizer: a folder or name of one that transformers can load; None: 4 characters are a token.
    """
    policy = config.policy
    assert isinstance(policy, HostedConfig)
    with extra("api"):
        from rmft.forecast import Seen, forecast, see

    count: Callable[[str], int] = estimate_tokens
    if tokenizer is not None:
        count = token_counter(tokenizer)
    seen, facts = Seen(), find_provider(policy.provider, policy.catalogue).model(policy.model)
    if calls:
        with closing(hosted_backend(config, policy, suites.values(), Path(), None)) as hosted:
            seen = see(hosted.model(policy.model, False), policy, suites[config.suite], calls, count)
    return forecast(config, policy, suites, facts, count, seen)


def forecast_local(
    config: RunConfig, suites: Mapping[str, Suite], num_problems: int
) -> tuple[list[Work], dict[str, float]]:
    """What a run with a local model will take, and its GB of memory; see `rmft.forecast_local`.

    num_problems: of the first stage that are really played, wherever the config says, to time it.
    """
    policy = config.policy
    if not isinstance(policy, LocalConfig):
        raise ConfigError(f"--dry-run forecasts what language models take; policy.kind is {policy.kind}.")
    with extra("llm"):
        from rmft.forecast_local import forecast_work, memory_gb, played, playing, timed
        from rmft.training.outline import outline

    model = outline(policy)
    works = forecast_work(config, policy, suites, model)
    memory = memory_gb(policy, model)
    if not num_problems:
        return works, memory
    stage = config.schedule()[0]
    suite, rollouts = suites[stage.suite], stage.rollout.num_rollouts
    with closing(backend(config, suites)) as machinery, TemporaryDirectory() as folder:
        start = machinery.start(Path(folder), config.seed)
        player = Player(start, stage.rollout.temperature, sample_arms=True)
        problems = suite.draw("train", num_problems, config.seed, 1)
        begun = time.perf_counter()
        roll_out(machinery, player, problems, rollouts, config.seed, 1)
        seconds = time.perf_counter() - begun
    one = played(policy, suite, "train", model)
    done = playing("", one, num_problems, rollouts, model)
    return timed(works, done.operations / seconds), memory
