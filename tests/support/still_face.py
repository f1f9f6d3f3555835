"""A video of the portrait that stands still, for what is done to footage: no pulse in it, or a known one."""

from pathlib import Path

import numpy as np

from sspd_jax.simulation import sample_video


def write_still(
    path: Path, *, frames: int = 60, fps: float = 30.0, own_bpm: float = 0.0, seed: int = 0
) -> None:
    """Write the portrait, with a sensor's noise and, if asked for, a pulse of its own of 1 % of green."""
    portrait, skin = sample_video.read_portrait()
    rng = np.random.default_rng(seed)
    times_s = np.arange(frames) / fps
    blood = sample_video.ppg(times_s, own_bpm) if own_bpm else np.zeros(frames)

    def pictures():
        for now in blood:
            seen = portrait * (1 - np.float32(now) * skin[..., None] * sample_video.PULSE_COLOUR)
            seen = seen + rng.standard_normal(seen.shape, np.float32)
            yield np.clip(np.rint(seen), 0, 255).astype(np.uint8)

    sample_video.write_video(path, pictures(), times_s, options={"qp": "2", "preset": "ultrafast"})
