"""SSPD on PURE: 10 people, 59 recordings.

    python -m sspd_jax.main --config=configs/pure.py --config.data.source=DIR

Five folds of two people, dealt by `data.split.seed`; number `data.split.fold` (0 to 4) is tested.

Its owners give it out; no run on it has been made with this code, so there is no number to expect yet.
Variants as in `configs/ubfc.py`; `docs/datasets.md` says what the reader expects.
"""

from sspd_jax.training import config as experiments

get_config = experiments.for_dataset("pure", split={"kind": "folds", "folds": 5})
