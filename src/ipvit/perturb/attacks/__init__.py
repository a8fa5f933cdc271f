"""Attacks on single images, one file each; :mod:`ipvit.perturb.attack` has them all by name."""
