"""The stage that labels unlabelled strips with trained models."""
