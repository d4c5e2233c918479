"""Every setting: its sections, and the files and command lines they are read from."""
