"""What a run says of a model, as a model card of the Hugging Face hub has it, and how it gets there."""
