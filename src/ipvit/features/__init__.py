"""Features on disk, and the classifiers that are fitted on them."""
