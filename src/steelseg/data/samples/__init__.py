"""Training samples and batches, and the precropped store."""
