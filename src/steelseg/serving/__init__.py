"""Predictions over HTTP: `steelseg serve`."""
