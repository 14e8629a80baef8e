"""The objective that every trainer minimizes, stated once.

Notation. i, t: trajectory and round; m_it its mask and N = sum m_it; A_it its advantage (`rmft.credit`). At
the sampling temperature T of the rollouts, pi(a) = softmax(logits / T) over the K legal actions is the policy
that is trained, and mu(a) the same of the policy that was rolled out, the behaviour policy.

    cross_entropy     L = 1/N sum m_it [ -A_it log pi(a_it) ]                           A_it = 1
    policy_gradient   L = 1/N sum m_it [ -A_it log pi(a_it) + kl_coef KL(mu || pi) ]

Where a batch has action targets y_it(a), sum_a y_it(a) log pi(a) stands in place of A_it log pi(a_it). The
first is rejection-sampling fine-tuning. The second is REINFORCE with a KL penalty to the policy rolled out
(PPO's penalty form, Schulman et al. 2017, eq. 8, without the ratio: the gradient is taken at mu and the
epochs of one batch are few). It is scored at T, since KL and log-probabilities of another distribution than
the one that was sampled from would pull the policy towards a flatter one in each iteration.

A language model adds, for every token w that it sampled before its decision, by the advantage of the round,

    -A_it log p(w) + kl_coef [ log mu(w) - log p(w) ]       over the whole vocabulary, at T

whose second part has the mean KL(mu || p), and for the decision, whose pi is renormalized over the legal
answers, legality_coef x -log sum_{legal} p(a). With A = 1 and legality_coef = 1 the two make -log p(a): plain
cross-entropy on all that the model wrote. N counts its sampled tokens (`loss_aggregation: token_mean`).

A decision is one of many sampled tokens, of which reasoning has most. With `loss_aggregation: round_mean` a
round's loss is the mean over the n_it tokens of its reasoning plus its decision's, and N counts rounds:

    L = 1/N sum m_it [ 1/n_it sum_j l(w_itj) + l(a_it) ]                                N = sum m_it

where l is the terms above of a token and of a decision; a distribution's digits are decision tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def decision_loss(logprobs: Tensor, weights: Tensor) -> Tensor:
    """- sum_n sum_a w_n(a) log pi_n(a), of (..., K) both; w is A one-hot at the decision, or action targets.

    Where a row has fewer actions than K, the others have weight 0 and a finite log probability.
    """
    return -(weights * logprobs).sum()


def kl_divergence(behaviour: Tensor, logprobs: Tensor) -> Tensor:
    """sum_n KL(mu_n || pi_n), of behaviour mu (..., K) and log pi (..., K)."""
    return (torch.xlogy(behaviour, behaviour) - behaviour * logprobs).sum()


def token_loss(logprobs: Tensor, advantages: Tensor, shares: Tensor) -> Tensor:
    """- sum_j s_j A_j log p(w_j), of (m,) each; the share s_j is 1, or 1/n_it with `round_mean`."""
    return -(shares * advantages * logprobs).sum()


def token_kl(behaviour_logprobs: Tensor, logprobs: Tensor, shares: Tensor) -> Tensor:
    """sum_j s_j [log mu(w_j) - log p(w_j)], of (m,) each: unbiased for KL divergences, as w_j is from mu."""
    return (shares * (behaviour_logprobs - logprobs)).sum()
