"""Segmentation by attention."""
