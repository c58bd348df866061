"""Moves frontiers. Knows token ids and logits; no tokenizer, no text."""
