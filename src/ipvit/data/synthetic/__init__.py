"""Data sets drawn by this code from a seed: shapes, textures and colours."""
