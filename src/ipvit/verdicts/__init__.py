"""What follows from two runs side by side: differences, assertions, families, and runs to hand on."""
