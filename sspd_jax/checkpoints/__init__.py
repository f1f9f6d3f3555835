"""Networks on disk: Orbax checkpoints, PyTorch's files, exports for use elsewhere."""
