"""SSPD on UBFC-rPPG, DATASET_1: eight people.

    python -m sspd_jax.main --config=configs/ubfc1.py --config.data.source=DIR

Four folds of two people, dealt by `data.split.seed`; number `data.split.fold` (0 to 3) is tested.

Its owners give it out; no run on it has been made with this code, so there is no number to expect yet.
Variants as in `configs/ubfc.py`; `docs/datasets.md` says what the reader expects.
"""

from sspd_jax.training import config as experiments

get_config = experiments.for_dataset("ubfc_rppg_1", split={"kind": "folds", "folds": 4})
