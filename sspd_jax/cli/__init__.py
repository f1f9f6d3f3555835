"""The commands: `sspd_jax NAME` is `main` of the module NAME. Arguments in, sentences and exit codes out."""
