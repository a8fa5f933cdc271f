"""The run folder: where it is, what it holds, and what of it a study asked for."""
