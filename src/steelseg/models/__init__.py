"""Networks, losses, weights and checkpoints."""
