"""Work that is queued on a device: what waits for its end, and what comes back of it."""
