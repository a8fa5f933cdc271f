"""Attention maps under occlusion."""
