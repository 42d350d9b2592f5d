"""Rollouts, PPO and its equations, rejection sampling, held-out answers and the guard, and PPO's health."""
