"""SSPD on UBFC-Phys: 56 people, 168 recordings.

    python -m sspd_jax.main --config=configs/ubfc_phys.py --config.data.source=DIR

People up to s34 are learned from and those from s46 on are tested, as in Toyota's RemotePPG; the eleven
between are its dev people.

Its owners give it out; no run on it has been made with this code, so there is no number to expect yet.
Variants as in `configs/ubfc.py`; `docs/datasets.md` says what the reader expects.
"""

from sspd_jax.training import config as experiments

get_config = experiments.for_dataset("ubfc_phys", split={"kind": "published", "name": "remoteppg"})
