"""Searching settings: trials, their study, what came of them."""
