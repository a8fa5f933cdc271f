"""Weights on disk and from URLs, read without executing anything, and the files this package writes."""
