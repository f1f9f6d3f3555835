"""SSPD on SCAMPS: 2,800 rendered clips, each of another invented person.

    python -m sspd_jax.main --config=configs/scamps.py --config.data.source=DIR

Five folds of clips, dealt by `data.split.seed`; number `data.split.fold` (0 to 4) is tested. (The owners' own
split is a file whose format is not known here.)

Its owners give it out; no run on it has been made with this code, so there is no number to expect yet.
Variants as in `configs/ubfc.py`; `docs/datasets.md` says what the reader expects.
"""

from sspd_jax.training import config as experiments

get_config = experiments.for_dataset("scamps", split={"kind": "folds", "folds": 5})
