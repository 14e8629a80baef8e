"""The objective that every trainer minimizes, stated once.

Notation. i, t: trajectory and round; m_it its mask and N = sum m_it; A_it its advantage (`rmft.credit`). At
the sampling temperature T of the rollouts, pi(a) = softmax(logits / T) over the K legal actions is the policy
that is trained, mu(a) the same of the policy that was rolled out, the behaviour policy, ref(a) that of the
policy that the run started from, and rho_it = pi(a_it) / mu(a_it).

    cross_entropy     L = 1/N sum m_it [ -A_it log pi(a_it) ]                           A_it = 1
    policy_gradient   L = 1/N sum m_it [ -A_it log pi(a_it) + kl_coef KL(mu || pi) ]
    ppo_clip          L = 1/N sum m_it [ -min(rho_it A_it, clip(rho_it, 1 - c, 1 + c) A_it)
                                         + kl_coef KL(pi || ref) ]                      c = clip_range
    dpo               L = 1/P sum_p -log sigmoid( beta sum_{i in p} sum_t m_it A_it log rho_it )
                                            P pairs p of a chosen (A = 1) and a rejected (A = -1) trajectory
    regret_loss       L = sum_j f(R_j) h(R_j) / sum_j f(R_j)          mean over sets of N reward sequences j

Where a batch has action targets y_it(a), sum_a y_it(a) log pi(a) stands in place of A_it log pi(a_it). The
first is rejection-sampling fine-tuning, or distillation where another's decisions are imitated. The second is
REINFORCE with a KL penalty to the policy rolled out (PPO's penalty form, Schulman et al. 2017, eq. 8, without
the ratio: the gradient is taken at mu and the epochs of one batch are few). The third is PPO's clip (eq. 7),
and GRPO's with its advantages (Shao et al. 2024, eq. 3). The fourth is DPO (Rafailov et al. 2023, eq. 7) of
whole trajectories, with mu as its reference. The fifth is that of Park et al. (2025, "Do LLM agents have
regret?", section 5): R_j = max_a sum_t r_t(a) - sum_t <pi_t, r_t> of the distributions that the policy plays
under full information, h(x) = x^2 or max(x, 0)^2, f(x) = max(x, 0)^k. All are scored at T, since KL and
log-probabilities of another distribution than the one that was sampled from would pull the policy towards a
flatter one in each iteration.

A language model adds, for every token w that it sampled before its decision, by the advantage of the round,

    -A_it log p(w) + kl_coef [ log mu(w) - log p(w) ]       over the whole vocabulary, at T

whose second part has the mean KL(mu || p), and in `ppo_clip` and `dpo` the terms above with rho =
p(w) / mu(w), where x - 1 - log x with x = ref(w) / p(w) estimates KL(p || ref) (Shao et al. 2024, eq. 4); and
for the decision, whose pi is renormalized over the legal answers, legality_coef x -log sum_{legal} p(a). With
A = 1 and legality_coef = 1 the two make -log p(a): plain cross-entropy on all that the model wrote. N counts
its sampled tokens (`loss_aggregation: token_mean`).

A decision is one of many sampled tokens, of which reasoning has most. With `loss_aggregation: round_mean` a
round's loss is the mean over the n_it tokens of its reasoning plus its decision's, and N counts rounds:

    L = 1/N sum m_it [ 1/n_it sum_j l(w_itj) + l(a_it) ]                                N = sum m_it

where l is the terms above of a token and of a decision; a distribution's digits are decision tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rmft.errors import TrainingError
from rmft.training.config import DPO, ObjectiveConfig, PPOClip, RegretLoss


@dataclass(frozen=True, slots=True, eq=False)
class DecisionTerms:
    """n decisions. logprobs: (n, K) log pi. weights: (n, K), A one-hot at the decision, or action targets.

    behaviour: (n, K) mu, None where it was not stated. reference: (n, K) log ref, where it is asked for.
    pair: (n,), from 0, of DPO. Where a row has fewer actions than K, the others have weight, mu and log
    probability 0.
    """

    logprobs: Tensor
    weights: Tensor
    behaviour: Tensor | None
    reference: Tensor | None = None
    pair: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TokenTerms:
    """n written tokens, (n,) each: log p, A, the share s that it counts (1, or 1/n_it with `round_mean`), log
    mu; where asked for log ref, and the pair."""

    logprobs: Tensor
    advantages: Tensor
    shares: Tensor
    behaviour: Tensor
    reference: Tensor | None = None
    pair: Tensor | None = None


def total_loss(
    objective: ObjectiveConfig, decisions: DecisionTerms | None, tokens: TokenTerms | None = None
) -> tuple[Tensor, Tensor]:
    """The sums, over decisions and tokens, of the objective (over pairs in DPO) and of KL(mu || pi).

    Of `regret_loss` see there. Raises TrainingError where mu is needed and was not stated; the KL divergence
    is 0 where it was not and nobody needs it.
    """
    parts: list[DecisionTerms | TokenTerms] = [terms for terms in (decisions, tokens) if terms is not None]
    kl = torch.stack([_kl(terms, needed=objective.needs_behaviour) for terms in parts]).sum()
    if isinstance(objective, DPO):
        log_ratios, pairs = zip(*(_log_ratios(terms) for terms in parts), strict=True)
        pair = torch.cat(pairs)
        margins = torch.zeros(int(pair.max()) + 1, device=pair.device)
        margins = margins.index_add(0, pair, torch.cat(log_ratios))
        return -logsigmoid(objective.beta * margins).sum(), kl
    if isinstance(objective, PPOClip):
        clipped = torch.stack([_clipped(terms, objective.clip_range) for terms in parts]).sum()
        if objective.kl_coef:
            clipped = clipped + objective.kl_coef * torch.stack([_reference_kl(each) for each in parts]).sum()
        return clipped, kl
    return torch.stack([_weighted(terms) for terms in parts]).sum() + objective.kl_coef * kl, kl


def regret_loss(regrets: Tensor, objective: RegretLoss) -> Tensor:
    """The sum over sets of sum_j f(R_j) h(R_j) / sum_j f(R_j), of regrets (sets, N) that are differentiated.

    Where no regret of a set is above 0, its loss is the mean of h.
    """
    above = regrets.clamp(min=0)
    h = above**2 if objective.h == "positive_square" else regrets**2
    f = above**objective.power
    plain = f.sum(dim=1, keepdim=True) == 0
    f = torch.where(plain, 1.0, f)
    return ((f * h).sum(dim=1) / f.sum(dim=1)).sum()


def _weighted(terms: DecisionTerms | TokenTerms) -> Tensor:
    """- sum w log pi, the weight of a token being s A."""
    if isinstance(terms, TokenTerms):
        return -(terms.shares * terms.advantages * terms.logprobs).sum()
    return -(terms.weights * terms.logprobs).sum()


def _kl(terms: DecisionTerms | TokenTerms, *, needed: bool) -> Tensor:
    """sum KL(mu || pi); for a token log mu(w) - log p(w), unbiased as w is from mu."""
    if isinstance(terms, TokenTerms):
        return (terms.shares * (terms.behaviour - terms.logprobs)).sum()
    if terms.behaviour is None:
        if needed:
            raise TrainingError("The objective needs the probabilities that decisions were drawn from.")
        return torch.zeros((), device=terms.logprobs.device)
    return (torch.xlogy(terms.behaviour, terms.behaviour) - terms.behaviour * terms.logprobs).sum()


def _log_rho(terms: DecisionTerms | TokenTerms) -> Tensor:
    """log pi - log mu, 0 - 0 where there is no action."""
    if isinstance(terms, TokenTerms):
        return terms.logprobs - terms.behaviour
    assert terms.behaviour is not None
    return terms.logprobs - torch.where(terms.behaviour > 0, terms.behaviour, 1.0).log()


def _clipped(terms: DecisionTerms | TokenTerms, clip_range: float) -> Tensor:
    weights = terms.weights if isinstance(terms, DecisionTerms) else terms.shares * terms.advantages
    rho = _log_rho(terms).exp()
    bounded = rho.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(rho * weights, bounded * weights).sum()


def _reference_kl(terms: DecisionTerms | TokenTerms) -> Tensor:
    """sum KL(pi || ref): exact of a decision, of a token by x - 1 - log x."""
    assert terms.reference is not None
    if isinstance(terms, TokenTerms):
        log_x = terms.reference - terms.logprobs
        return (terms.shares * (log_x.exp() - 1 - log_x)).sum()
    return (terms.logprobs.exp() * (terms.logprobs - terms.reference)).sum()


def _log_ratios(terms: DecisionTerms | TokenTerms) -> tuple[Tensor, Tensor]:
    """(n,) A log rho of each, and its pair."""
    assert terms.pair is not None
    log_rho = _log_rho(terms)
    if isinstance(terms, TokenTerms):
        return terms.shares * terms.advantages * log_rho, terms.pair
    return (terms.weights * log_rho).sum(dim=1), terms.pair
