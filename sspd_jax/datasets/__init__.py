"""From recordings on disk to clips: readers, preparer, prepared format, input pipeline, simulator."""
