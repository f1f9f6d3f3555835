"""From recordings on disk to clips for training: readers, the preparer, the prepared format, the simulator."""
