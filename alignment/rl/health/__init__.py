"""Whether an update of PPO looks right, and the likely cause where it does not."""
