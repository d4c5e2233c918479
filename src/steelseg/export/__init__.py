"""Exports, bundles and model repositories: a trained run for use elsewhere."""
