"""Zero-shot models: what their classes are told by, and the classifier that is made of it."""
