"""Correlation of clean and occluded representations."""
