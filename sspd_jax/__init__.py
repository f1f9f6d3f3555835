"""SSPD in JAX: heart rate from face video, learned without labels.

`read` reads the heart rate of a video, an array of frames or any stream of them, `watch` that of a camera as
it runs; `load` opens a checkpoint. `sspd_jax.method` holds the method as pure functions. Every command is
`sspd_jax <name>` and `python -m sspd_jax.<name>`: predict, live, main, prepare, evaluate, compare, study,
convert, export, …
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from sspd_jax.inference.live import Update
    from sspd_jax.inference.model import RppgModel
    from sspd_jax.inference.prediction import Prediction

__version__ = "0.1.0"
__all__ = ["load", "read", "watch"]


def load(checkpoint: str) -> RppgModel:
    """Load a network that reads pulse waves, see `sspd_jax.inference.model.load_model`.

    Args:
      checkpoint: a directory that `python -m sspd_jax convert` or a training wrote.
    """
    from sspd_jax.inference.model import load_model  # JAX takes seconds to import: not before it is needed

    return load_model(checkpoint)


def read(
    video: str | Path | np.ndarray | Iterable[tuple[float, np.ndarray]],
    *,
    fps: float | None = None,
    checkpoint: str | RppgModel | None = None,
    method: str | None = None,
    **settings: Any,
) -> Prediction:
    """Read the heart rate of the face in a video.

    Args:
      video: path of a file; or uint8 [t, h, w, 3] RGB, whole pictures; or an iterable of (time in s, uint8
        [h, w, 3] RGB).
      fps: of the pictures, Hz; a file states its own.
      checkpoint: a network's directory, or what `load` returned; none is needed for a classical method.
      method: 'sspd' (with a checkpoint, the default), 'pos' (without one, the default), 'chrom', …
      **settings: fields of `sspd_jax.inference.windows.Settings`: window_s, stride_s, read_out, min_confidence.

    Returns:
      The prediction: `heart_rate_bpm` (None where there is no reading), `confidence`, `windows`, `wave`, …

    Raises:
      UserError: the video cannot be read, shows no face or is too short; one sentence.
      ConfigError: a wrong argument.
    """
    from sspd_jax.errors import ConfigError
    from sspd_jax.inference import predict
    from sspd_jax.inference.model import load_model
    from sspd_jax.inference.windows import Settings

    reader = load_model(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    options = {
        "reader": reader,
        "method": method or ("sspd" if reader else "pos"),
        "settings": Settings(**settings),
    }
    if isinstance(video, str | Path):
        return predict.predict(video, **options)
    if fps is None:
        raise ConfigError("frames without a file need their rate: read(frames, fps=30)")
    return predict.predict_frames(video, fps, **options)


def watch(frames: Iterable[tuple[float, np.ndarray]], fps: float, **options: Any) -> Iterator[Update]:
    """Read a heart rate as the frames come, see `sspd_jax.inference.live.watch`."""
    from sspd_jax.inference import live

    return live.watch(frames, fps, **options)
