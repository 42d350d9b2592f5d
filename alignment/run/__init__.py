"""The run folder: what is finished, from what it was made, ledger and metrics. No torch."""
