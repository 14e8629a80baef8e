"""The expected regret of optimal play where the prior is known, and why it is not known elsewhere."""

from __future__ import annotations

from rmft.bayes.bandit import MAX_STATES, greedy_reward, num_states, optimal_reward
from rmft.bayes.prior import NormalArms, Prior
from rmft.errors import ConfigError
from rmft.regret import RegretKind
from rmft.types import Rules


def refusal(rules: Rules, prior: Prior | None) -> str | None:
    """Why optimal play is not known here; None where it is."""
    if prior is None:
        return "its reward process states no prior that is known (see rmft.bayes.prior)"
    if rules.feedback == "full":
        return None
    if isinstance(prior, NormalArms):
        return "a bandit with Gaussian rewards has no finite number of states"
    states = num_states(rules.horizon, rules.num_arms)
    if states > MAX_STATES:
        return (
            f"{rules.num_arms} arms over {rules.horizon} rounds have {states:.1g} states; "
            f"dynamic programming takes at most {MAX_STATES:.0g}"
        )
    return None


def optimum(rules: Rules, prior: Prior | None, kind: RegretKind) -> float:
    """The expected regret of a policy that knows the prior and plays optimally, over problems and luck.

    Under full information decisions change nothing that is seen, and the posterior mean of exchangeable arms
    rises with their totals: the leader is optimal, and its regret has a closed form. In a Bernoulli bandit it
    is found by dynamic programming, in up to half a minute and 1 GB. Raises ConfigError where it is unknown.
    """
    if (why := refusal(rules, prior)) is not None or prior is None:
        raise ConfigError(f"The optimum is not known here: {why}.")
    if rules.feedback == "full" or isinstance(prior, NormalArms):
        earned = sum(prior.leader_mean(t, rules.num_arms) for t in range(rules.horizon))
    else:
        earned = optimal_reward(prior, rules.horizon, rules.num_arms)
    return _comparator(rules, prior, kind) - earned


def greedy_regret(rules: Rules, prior: Prior | None, kind: RegretKind) -> float:
    """As `optimum`, for the arm of the highest posterior mean in every round; the two agree in full."""
    if rules.feedback == "full" or prior is None or isinstance(prior, NormalArms) or refusal(rules, prior):
        return optimum(rules, prior, kind)
    return _comparator(rules, prior, kind) - greedy_reward(prior, rules.horizon, rules.num_arms)


def _comparator(rules: Rules, prior: Prior, kind: RegretKind) -> float:
    """What regret compares with, expected; means rest, so that the best arm of a round is the best of all."""
    if kind == "static":
        return prior.best_total(rules.horizon, rules.num_arms)
    return rules.horizon * prior.best_mean(rules.num_arms)
