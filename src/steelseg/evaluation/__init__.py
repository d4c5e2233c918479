"""Stages on held-out strips: prediction, tuning, scores, comparison, cascades and ensembles."""
