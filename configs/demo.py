"""The demo: SSPD on simulated faces, small enough for minutes on two CPU cores.

`make demo` writes the recordings (`sspd_jax.datasets.simulator`, preset easy: people who hold nearly still),
prepares them, trains on twelve people without any label and tests on four others. The network is a smaller
one of the same code (58×58 pixels, two stages), in the released form: it learns in fewer steps than the
paper's form does. GREEN reads such people as well: the demo shows that the whole road works, and says
nothing about real faces. About 40 steps of 3 s on two cores.
"""

from sspd_jax import config as experiments
from sspd_jax import forms


def get_config(variants: str = ""):
    """Return the experiment's configuration.

    Args:
      variants: comma-separated names out of `sspd_jax.config.VARIANTS`.
    """
    config = experiments.default(forms.RELEASED)
    config.network.update(
        input_size=58, stages=((8, 8), (8, 16)), features=32, predictor_width=16, ts_kernels=(9, 7, 5)
    )
    config.crop_size = 68
    config.clip_frames = 160
    config.batch_size = 6
    config.epochs = 20
    config.data.source = "workdir/demo/recordings"
    config.data.data_dir = "workdir/demo/data"
    config.data.train_people = tuple(f"subject{i}" for i in range(1, 13))
    config.data.test_people = tuple(f"subject{i}" for i in range(13, 17))
    return experiments.with_variants(config, variants)
