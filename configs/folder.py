"""SSPD on a folder of your own videos, without any label.

    python -m sspd_jax.main --config=configs/folder.py --config.data.source=DIR

Everyone in it is learned from and nobody is tested; videos that cannot be used are named and left out. Where
videos have a pulse wave beside them, `--config.data.split.kind=folds` tests on a fifth of the people. Videos
need a face for 10 s and more.

Of one's own videos no number is to be expected beforehand. Variants as in `configs/ubfc.py`.
"""

from sspd_jax.training import config as experiments

get_config = experiments.for_dataset("folder", split={"kind": "everyone"}, keep_going=True)
