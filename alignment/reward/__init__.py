"""Reward-model losses and training, and the gate that combines the two reward models."""
