"""Who decides which answer is better."""
