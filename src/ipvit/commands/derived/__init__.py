"""Commands that make copies of data sets."""
