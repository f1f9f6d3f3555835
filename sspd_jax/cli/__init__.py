"""The commands: `sspd_jax NAME` is `main` of the module of that name. Arguments in, sentences and exit codes out."""
