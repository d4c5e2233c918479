"""All settings, and how they are read from files and the command line."""
