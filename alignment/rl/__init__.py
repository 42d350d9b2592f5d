"""Rollouts, advantages, PPO and rejection sampling."""
