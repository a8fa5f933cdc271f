"""Tables, figures and sentences of single attacks."""
