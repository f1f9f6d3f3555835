"""Training without labels: configuration, state, step, devices, loop, checkpoints."""
