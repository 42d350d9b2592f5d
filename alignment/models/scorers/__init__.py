"""What gives an answer a score: reward models on the shared base, beside it, and of other programs."""
