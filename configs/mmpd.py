"""SSPD on MMPD or mini-MMPD: 33 people, 660 phone videos.

    python -m sspd_jax.main --config=configs/mmpd.py --config.data.source=DIR

Five folds of people, dealt by `data.split.seed`; number `data.split.fold` (0 to 4) is tested.

Its owners give it out; no run on it has been made with this code, so there is no number to expect yet.
Variants as in `configs/ubfc.py`; `docs/datasets.md` says what the reader expects.
"""

from sspd_jax import config as experiments


def get_config(variants: str = ""):
    """Return the experiment's configuration.

    Args:
      variants: comma-separated names out of `sspd_jax.config.VARIANTS`.
    """
    config = experiments.default()
    config.data.update(name="mmpd", data_dir="data/mmpd")
    config.data.split.update(kind="folds", folds=5)
    return experiments.with_variants(config, variants)
