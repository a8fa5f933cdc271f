"""Calibration in the tables: rows of measures from the records of one model."""
