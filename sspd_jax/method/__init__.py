"""SSPD as pure functions: views, network, self-similarity, spectra, losses, target, gradient routing.

Nothing in here reads a file, keeps state or knows a configuration; everything runs under `jax.jit`.
"""
