"""Masks, means, log-probabilities and padding: plain functions on tensors."""
