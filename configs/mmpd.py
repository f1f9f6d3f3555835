"""SSPD on MMPD or mini-MMPD: 33 people, 660 phone videos.

    python -m sspd_jax.main --config=configs/mmpd.py --config.data.source=DIR

Five folds of people, dealt by `data.split.seed`; number `data.split.fold` (0 to 4) is tested.

Its owners give it out; no run on it has been made with this code, so there is no number to expect yet.
Variants as in `configs/ubfc.py`; `docs/datasets.md` says what the reader expects.
"""

from sspd_jax.training import config as experiments

get_config = experiments.for_dataset("mmpd", split={"kind": "folds", "folds": 5})
