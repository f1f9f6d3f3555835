"""From a wave to a heart rate: filters, read-outs and the classical methods, in NumPy and SciPy."""
