"""What a run folder holds, and how each of its files is read and written."""
