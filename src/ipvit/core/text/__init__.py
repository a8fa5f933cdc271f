"""Text that people read and write: words of sentences, notebooks, messages on wrong values, text files."""
