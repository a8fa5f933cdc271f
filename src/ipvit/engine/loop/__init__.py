"""What the loop over images stands on: which batches are whose, what fails, the next batch, the thread that
writes; which networks are on the device, and how one is compiled for its batches."""
