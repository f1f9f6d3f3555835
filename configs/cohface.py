"""SSPD on COHFACE: 40 people, 160 clips, heavily compressed, at 20 frames/s.

    python -m sspd_jax.main --config=configs/cohface.py --config.data.source=DIR
    python -m sspd_jax.main --config=configs/cohface.py --config.data.split.name=clean

The dataset's own protocols: all, clean (studio light) or natural (daylight); their dev people are neither
learned from nor tested on.

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
    config.data.update(name="cohface", data_dir="data/cohface")
    config.data.split.update(kind="protocol", name="all")
    return experiments.with_variants(config, variants)
