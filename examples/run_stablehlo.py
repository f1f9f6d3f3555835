"""Read a pulse wave with an exported network, with JAX and NumPy alone.

    python -m sspd_jax export --checkpoint=DIR --format=stablehlo --output=ubfc.stablehlo
    python examples/run_stablehlo.py ubfc.stablehlo crops.npy --output=wave.npy

The second command needs `pip install jax flatbuffers` and nothing of sspd_jax. `crops.npy` holds one face,
already cropped: uint8 [frames, s, s, 3] RGB at the network's frame rate; `ubfc.stablehlo.json` says s and the
rate.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.export
import numpy as np


def read_wave(read, crops, halo, window):
    """Read crops of any length, in windows that join exactly.

    Args:
      read: uint8 [t + 1, s, s, 3] → float32 [t], t even.
      crops: uint8 [n + 1, s, s, 3], n ≥ 1.
      halo: samples to either side that an output depends on; even.
      window: samples read at once; even, more than twice the halo. Memory is that of a window.

    Returns:
      float32 [n].
    """
    n = len(crops) - 1
    if n % 2:  # one more difference, of zeros
        crops = np.concatenate([crops, crops[-1:]])
    total = len(crops) - 1
    wave = np.empty(total, np.float32)
    start = 0
    while True:
        stop = min(start + window, total)
        start = max(stop - window, 0)  # the last window ends with the recording
        samples = np.asarray(read(crops[start : stop + 1]))
        left = halo if start else 0  # what is left out here, the window before has read
        wave[start + left : stop] = samples[left:]
        if stop == total:
            return wave[:n]
        start = stop - 2 * halo  # so that the next one reads this one's right edge again


def main():
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "network", metavar="FILE", help="that sspd_jax.checkpoints.export wrote; FILE.json beside it"
    )
    parser.add_argument("crops", metavar="CROPS.npy", help="uint8 [frames, s, s, 3] RGB")
    parser.add_argument("--output", default="wave.npy", metavar="WAVE.npy", help="default: wave.npy")
    parser.add_argument("--window", type=int, default=320, help="samples read at once (default: 320)")
    args = parser.parse_args()

    about = json.loads(Path(f"{args.network}.json").read_text())
    crops = np.load(args.crops)
    side = about["crop_size"]
    if crops.dtype != np.uint8 or crops.shape[1:] != (side, side, 3) or len(crops) < 2:
        parser.error(
            f"{args.crops} holds {crops.dtype} {list(crops.shape)}, not uint8 [≥ 2, {side}, {side}, 3]"
        )
    if args.window % 2 or args.window <= 2 * about["halo"]:
        parser.error(f"--window={args.window} is not even and above {2 * about['halo']}")
    exported = jax.export.deserialize(bytearray(Path(args.network).read_bytes()))
    wave = read_wave(jax.jit(exported.call), crops, about["halo"], args.window)
    np.save(args.output, wave)
    print(f"{args.output}: {len(wave)} samples, {len(wave) / about['fps']:.1f} s at {about['fps']:g} Hz")


if __name__ == "__main__":
    main()
