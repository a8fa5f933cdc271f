"""Commands that compare and hand on: ``diff``, ``bundle``, and what every command does with assertions."""
