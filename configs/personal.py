"""The network in `data/simulated_faces`, gone on with on one person's own videos, without any label.

    python -m sspd_jax.main --config=configs/personal.py --config.data.source=DIR --workdir=workdir/personal
    python -m sspd_jax predict new.mp4 --checkpoint=workdir/personal/network/target

DIR holds a folder for each person, here one: DIR/anna/monday.mp4, DIR/anna/tuesday.mp4, … A few minutes of
video in all are enough to begin with. The training ends when the network is trusted no more than before, see
`docs/robust.md`; where it warns, use the network it began from. What to expect is in
`benchmarks/robustness/personal.md`.
"""

from sspd_jax.training import config as experiments


def get_config(variants: str = ""):
    """Return the experiment's configuration.

    Args:
      variants: comma-separated names out of `sspd_jax.training.config.VARIANTS`.
    """
    config = experiments.load("configs/demo.py:robust").unlock()
    config.init_from = "data/simulated_faces"
    config.time_stretch.min_speed = 1.0  # as that network learned
    config.epochs = 20
    config.optimizer.learning_rate = 3e-4
    config.health.patience = 5
    config.data.update(name="folder", source="", data_dir="data/personal", keep_going=True)
    config.data.update(train_people=(), test_people=())
    config.data.split.kind = "everyone"
    return experiments.with_variants(config, variants)
