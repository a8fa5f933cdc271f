"""Natural shifts: accuracy on other photographs of the same classes, and what of it clean accuracy predicts."""
