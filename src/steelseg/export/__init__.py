"""From a run to what predicts elsewhere."""
