"""From strips to masks: predictor, stitching, test-time augmentation, submission."""
