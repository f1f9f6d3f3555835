"""Turn the authors' published PyTorch weights into a checkpoint of ours.

    python -m sspd_jax convert ubfc.pth --output=DIR

The file is read without PyTorch and without running anything in it. PyTorch's network takes BGR frames
and ours RGB: the first layers' channels are turned about.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax

from sspd_jax.checkpoints import torch_names, torch_reader
from sspd_jax.checkpoints.network import save_network
from sspd_jax.method import network
from sspd_jax.method.settings import CROP_SIZE, FPS, NetworkSettings, network_table


def convert(weights: str | Path, output: str | Path) -> int:
    """Convert a PyTorch state dict of the published network.

    Args:
      weights: A `.pth` file, the TS blocks' weights in it or not.
      output: Directory to make; it must not exist yet.

    Returns:
      The number of parameters converted.

    Raises:
      UserError: The file is damaged, is not weights alone, or belongs to another network; or the output
        exists or cannot be written.

    Example:
      A file that holds something else is refused before anything is written:

      >>> convert("README.md", "checkpoint")
      Traceback (most recent call last):
      sspd_jax.errors.UserError: README.md ...
    """
    settings = NetworkSettings()
    state_dict = torch_reader.read_state_dict(weights)
    expected = torch_names.torch_layout_of(*network.abstract_variables(settings))
    torch_names.check_layout(state_dict, expected, weights)
    params, batch_stats = torch_names.from_torch(state_dict)
    config = {
        "network": network_table(settings),
        "fps": FPS,
        "crop_size": CROP_SIZE,
        "source": {
            "file": Path(weights).name,
            "sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
        },
    }
    save_network(output, config, params, batch_stats)
    return sum(leaf.size for leaf in jax.tree.leaves(params))
