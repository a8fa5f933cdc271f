"""What the loop over images stands on: which batches are whose, what fails, the thread that writes."""
