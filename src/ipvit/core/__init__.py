"""What every part of the package may speak of: the options of a run, the manifest of a run folder."""
