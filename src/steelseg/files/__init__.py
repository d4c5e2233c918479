"""Atomic file writes and journals."""
