"""Metrics, post-processing and out-of-fold predictions."""
