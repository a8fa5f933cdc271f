"""What the loop over images stands on: which batches are whose, what fails, the next batch, the thread that
writes; and how a network is compiled for its batches."""
