"""The commands, a module for each kind of work. They import a stage when it runs."""
