"""Metrics, post-processing and their tuning: arithmetic on arrays, without files or torch."""
