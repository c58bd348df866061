"""The same promises on real weights."""
