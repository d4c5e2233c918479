"""The pseudo-label stage: labels for unlabelled strips from trained networks."""
