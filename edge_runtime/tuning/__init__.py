"""Finds out by measuring which knobs suit a target, this machine and a kind of text, and remembers it."""
