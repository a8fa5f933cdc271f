"""Feature drop."""
