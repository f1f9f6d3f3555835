"""From a wave to a heart rate: filters and read-outs in NumPy and SciPy, the classical methods in JAX."""
