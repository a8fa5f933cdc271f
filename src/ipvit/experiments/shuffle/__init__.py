"""Patch shuffle."""
