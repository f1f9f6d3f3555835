"""SSPD on VIPL-HR: 107 people, 2,378 colour videos at 16 to 30 frames/s.

    python -m sspd_jax.main --config=configs/vipl_hr.py --config.data.source=DIR

The dataset's own five folds (its folder fold); number `data.split.fold` (1 to 5) is tested.

Its owners give it out; no run on it has been made with this code, so there is no number to expect yet.
Variants as in `configs/ubfc.py`; `docs/datasets.md` says what the reader expects.
"""

from sspd_jax.training import config as experiments

get_config = experiments.for_dataset("vipl_hr", split={"kind": "own_folds", "fold": 1})
