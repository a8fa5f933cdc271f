"""The foundation: digests, artifacts, versions, memory."""
