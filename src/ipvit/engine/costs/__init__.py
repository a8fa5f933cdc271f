"""What a study and the settings of a run will cost, before it is run."""
