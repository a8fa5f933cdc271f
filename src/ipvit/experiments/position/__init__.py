"""The image in a corner of the canvas."""
