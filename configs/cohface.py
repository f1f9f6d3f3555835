"""SSPD on COHFACE: 40 people, 160 clips, heavily compressed, at 20 frames/s.

    python -m sspd_jax.main --config=configs/cohface.py --config.data.source=DIR
    python -m sspd_jax.main --config=configs/cohface.py --config.data.split.name=clean

The dataset's own protocols: all, clean (studio light) or natural (daylight); their dev people are neither
learned from nor tested on.

Its owners give it out; no run on it has been made with this code, so there is no number to expect yet.
Variants as in `configs/ubfc.py`; `docs/datasets.md` says what the reader expects.
"""

from sspd_jax.training import config as experiments

get_config = experiments.for_dataset("cohface", split={"kind": "protocol", "name": "all"})
