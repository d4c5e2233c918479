"""The version of steelseg."""

__version__ = "0.1.0"
