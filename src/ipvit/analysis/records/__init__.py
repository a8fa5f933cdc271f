"""Records of millions of rows: groups and filters of them, and what they were reduced to as bytes."""
