"""Synthetic strips with drawn defects."""
