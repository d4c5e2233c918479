"""Grid search over post-processing settings."""
