"""Formats of exported networks: one module writes and runs each."""
