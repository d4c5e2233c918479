"""Weighted means of several models' predictions."""
