"""SSPD on UBFC-rPPG, as published.

Zhang et al., "Self-Similarity Prior Distillation for Unsupervised Remote Physiological Measurement",
IEEE Transactions on Multimedia 26, 2024 (arXiv 2311.05100): 30 people (ids up to 37) to learn from, one
random 10 s window of each per epoch, 30 epochs of batches of 12, Adam at 1e-3, the other 12 people
(ids 38-49) to test on.

    configs/ubfc.py              the paper's form, the default
    configs/ubfc.py:released     what the authors' public PyTorch code computes
    configs/ubfc.py:robust       ours: the released form, with light taken out of the video
    configs/ubfc.py:downsampled  the paper's form with similarity blocks that halve the rate
                                 (30 → 15 → 7.5 Hz; the last keeps it, or 3 Hz would not fit)
    configs/ubfc.py:smoke        the paper's form, small enough for seconds on any machine

Variants combine: `configs/ubfc.py:released,smoke`.
"""

from sspd_jax.training import config as experiments

_IDS = (1, 3, 4, 5, *range(8, 19), 20, *range(22, 28), *range(30, 50))  # DATASET_2 has these 42


def get_config(variants: str = ""):
    """Return the experiment's configuration.

    Args:
      variants: comma-separated names out of `sspd_jax.training.config.VARIANTS`.
    """
    config = experiments.default()
    config.data.train_people = tuple(f"subject{i}" for i in _IDS if i <= 37)
    config.data.test_people = tuple(f"subject{i}" for i in _IDS if i > 37)
    return experiments.with_variants(config, variants)
