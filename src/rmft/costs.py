"""What a run will take, before it starts: the forecast of a hosted one, and the budget of a paid one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rmft.build import extra, hosted_backend, token_counter
from rmft.config import RunConfig
from rmft.errors import ConfigError
from rmft.messages import estimate_tokens
from rmft.policies.config import HostedConfig
from rmft.problems.suites import Suite
from rmft.providers.catalogue import find_provider

if TYPE_CHECKING:
    from rmft.forecast import Line


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
    if not isinstance(policy, HostedConfig):
        raise ConfigError(f"--dry-run forecasts what hosted models cost; policy.kind is {policy.kind}.")
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
