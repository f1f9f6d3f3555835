"""From recordings as their owners give them away to prepared datasets and batches of clips."""
