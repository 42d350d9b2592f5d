"""Drawing answers from a policy: in batches, or one as it is written."""
