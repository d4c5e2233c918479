"""Synthetic strips with defects."""
