"""Metrics and post-processing: arithmetic on arrays, no files and no torch."""
