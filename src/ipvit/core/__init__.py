"""The foundation: the options of a run, its manifest, artifacts beside the records, digests, versions, memory."""
