"""The toy world: facts, prompts, answers, a gold judge, simulated annotators and a tiny base model."""
