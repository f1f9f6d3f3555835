"""What the machine gives: storage, processes, signals, logs, compilation."""
