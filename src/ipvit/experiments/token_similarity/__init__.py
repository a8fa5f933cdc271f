"""Similarity of class and shape token."""
