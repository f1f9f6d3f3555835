"""From a pulse wave or a colour trace to a heart rate, its beats, and the chance that it is right."""
