"""Reward models: losses, training, calibration, and the gate that combines the two."""
