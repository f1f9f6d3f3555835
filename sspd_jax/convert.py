"""Turn the authors' published PyTorch weights into a checkpoint of ours.

    python -m sspd_jax.convert ubfc.pth --output=DIR

The file is read without PyTorch and without running anything in it. PyTorch's network takes BGR frames
and ours RGB: the first layers' channels are turned about.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from sspd_jax import checkpoint, command, forms, torch_file, torch_layout
from sspd_jax import config as experiments
from sspd_jax.method import model


def convert(weights: str | Path, output: str | Path) -> int:
    """Convert a PyTorch state dict of the published network.

    Args:
      weights: a `.pth` file, the TS blocks' weights in it or not.
      output: directory to make; must not exist yet.

    Returns:
      The number of parameters converted.

    Raises:
      UserError: the file is damaged, is not weights alone, or belongs to another network; or the output
        exists or cannot be written.
    """
    experiment = experiments.default(forms.RELEASED)
    settings = experiments.network_settings(experiment)
    state_dict = torch_file.read_state_dict(weights)
    expected = torch_layout.torch_layout_of(*model.abstract(settings))
    torch_layout.check_layout(state_dict, expected, weights)
    params, batch_stats = torch_layout.from_torch(state_dict)
    config = {
        "network": experiment.network.to_dict(),
        "fps": experiment.fps,
        "crop_size": experiment.crop_size,
        "source": {
            "file": Path(weights).name,
            "sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
        },
    }
    checkpoint.save_network(output, config, params, batch_stats)
    return sum(leaf.size for part in params.values() for leaf in _leaves(part))


def _leaves(tree):
    return [leaf for part in tree.values() for leaf in (_leaves(part) if isinstance(part, dict) else [part])]


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sspd_jax.convert",
        description=__doc__.split("\n")[0],
        epilog="The way back: python -m sspd_jax.export --checkpoint=DIR --format=pytorch --output=FILE.pth",
    )
    parser.add_argument("weights", metavar="WEIGHTS.pth", help="PyTorch state dict of the published network")
    parser.add_argument("--output", required=True, metavar="DIR", help="checkpoint directory to make")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        count = convert(args.weights, args.output)
        print(f"{args.output}: {count:,} parameters from {args.weights}")

    return command.run(work, debug=args.debug)


if __name__ == "__main__":
    sys.exit(main())
