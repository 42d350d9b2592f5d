"""Numbers with their intervals: what policies and reward models are worth. No torch."""
