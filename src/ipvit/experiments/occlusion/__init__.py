"""PatchDrop."""
