"""Files that survive a kill: atomic writes, locks, journals, and JSON artefacts."""
