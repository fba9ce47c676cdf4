"""Masking: how personal values become tokens, and who can turn them back."""
