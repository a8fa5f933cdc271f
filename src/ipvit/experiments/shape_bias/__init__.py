"""Shape bias on cue-conflict images."""
