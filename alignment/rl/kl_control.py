"""The price of divergence, beta in ``R = score - beta * KL(policy || reference)`` (Llama 2, section 3.2.3).

The paper holds beta fixed. The adaptive controller is that of Ziegler et al. 2019 (arXiv:1909.08593), section 2.2: a
proportional one on the log of beta, which steers the divergence towards a target.
"""

from __future__ import annotations

from alignment.settings.ppo_sections import PPOSection

LARGEST_ERROR = 0.2
"""Relative error beyond which the controller does not react more strongly (Ziegler et al. 2019)."""


class KLController:
    """Holds beta; with ``ppo.kl_control=adaptive`` moves it after every update.

    ``e = clip(KL / target - 1, -0.2, 0.2)``, then ``beta *= 1 + e * episodes / horizon``.
    """

    def __init__(self, settings: PPOSection) -> None:
        self.beta = settings.kl_beta
        self.target = settings.kl_target_nats if settings.kl_control == "adaptive" else None
        self.horizon = settings.kl_horizon_episodes

    def observe(self, kl_nats: float, n_episodes: int) -> None:
        """Take note of one update.

        Args:
            kl_nats: mean over answers of the divergence from the reference, nats.
            n_episodes: answers in the batch.
        """
        if self.target is not None:
            error = min(max(kl_nats / self.target - 1, -LARGEST_ERROR), LARGEST_ERROR)
            self.beta *= 1 + error * n_episodes / self.horizon

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint holds of it."""
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.beta = state["beta"]
