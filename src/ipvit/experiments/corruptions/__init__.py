"""Corruptions and mCE."""
