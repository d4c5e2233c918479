"""The stage that combines several runs into one."""
