"""Strips, labels, folds, crops and the precropped store."""
