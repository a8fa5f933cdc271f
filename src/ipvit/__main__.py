"""``python -m ipvit``."""

from ipvit.cli import entry_point

entry_point()
