"""Augmentation steps for training samples."""
