"""Clean accuracy."""
