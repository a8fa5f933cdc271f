"""The engine: one pass over the files for all models and conditions, records on disk, resumable."""
