"""A line's camera: strips are predicted as they are written into a folder."""
