"""The demo: SSPD on simulated faces, small enough for minutes on two CPU cores.

`make demo` writes the recordings (`sspd_jax.simulation.recordings`, preset default: heads that move, GREEN
misses by 20 bpm), prepares them, trains on twelve people without any label and tests on six others. The
network is a smaller one of the same code (36×36 pixels, one stage), in the released form: it learns in fewer
steps than the paper's form does, and stays with the pulse.
`benchmarks/accuracy/simulated_people.md` has longer trainings, all presets, both forms and several seeds.
"""

from sspd_jax.training import config as experiments
from sspd_jax.training import presets


def get_config(variants: str = ""):
    """Return the experiment's configuration.

    Args:
      variants: comma-separated names out of `sspd_jax.training.config.VARIANTS`.
    """
    config = experiments.default(presets.RELEASED)
    config.network.update(
        input_size=36, stages=((8, 8),), features=32, predictor_width=16, ts_kernels=(9, 7, 5)
    )
    config.crop_size = 42
    config.clip_frames = 160
    config.batch_size = 2
    config.epochs = 30
    config.data.source = "workdir/demo/recordings"
    config.data.data_dir = "workdir/demo/data"
    config.data.train_people = tuple(f"subject{i}" for i in range(1, 13))
    config.data.test_people = tuple(f"subject{i}" for i in range(13, 19))
    return experiments.with_variants(config, variants)
