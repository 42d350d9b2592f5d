"""Who writes the answers that are compared."""
