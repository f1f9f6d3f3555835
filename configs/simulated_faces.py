"""The network in `data/simulated_faces`: SSPD in the robust form on simulated faces filmed at preset hard.

    python -m sspd_jax simulate workdir/simulated_faces/recordings \
        --preset=hard --people=24 --seconds=20 --seed=700
    python -m sspd_jax.main --config=configs/simulated_faces.py --workdir=workdir/simulated_faces/run

Eighteen people to learn from, without any label, and six others to test on. Sizes are the demo's.
`data/simulated_faces.md` says what the network is worth.
"""

from sspd_jax.training import config as experiments


def get_config(variants: str = ""):
    """Return the experiment's configuration.

    Args:
      variants: comma-separated names out of `sspd_jax.training.config.VARIANTS`.
    """
    config = experiments.load("configs/demo.py:robust").unlock()
    config.epochs = 40
    config.time_stretch.min_speed = 1.0  # the robust form as it was then
    config.data.source = "workdir/simulated_faces/recordings"
    config.data.data_dir = "workdir/simulated_faces/data"
    config.data.train_people = tuple(f"subject{i}" for i in range(1, 19))
    config.data.test_people = tuple(f"subject{i}" for i in range(19, 25))
    return experiments.with_variants(config, variants)
