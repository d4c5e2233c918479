"""Checks of a data set: faults, duplicates, copies and file hashes."""
