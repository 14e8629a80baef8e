"""rmft: Iterative Regret-Minimization Fine-Tuning."""

__version__ = "0.2.0"
