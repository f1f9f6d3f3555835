"""SSPD in JAX: heart rate from face video, learned without labels.

`read` estimates the heart rate in a video, an upload, pictures or a stream of them, `watch` that before a
camera as it runs: from the skin of the face, by classical methods and the network that ships with the
package, side by side. `load` opens a checkpoint. `sspd_jax.method` holds the method as pure functions. Every
command is `sspd_jax NAME` and `python -m sspd_jax NAME`; `sspd_jax --help` lists them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sspd_jax.errors import ConfigError, did_you_mean, lacking
from sspd_jax.runtime import processes

if TYPE_CHECKING:
    from sspd_jax.inference.live import Update
    from sspd_jax.inference.model import RppgModel
    from sspd_jax.inference.prediction import Prediction

__version__ = "0.1.0"
__all__ = ["load", "read", "watch"]


def load(checkpoint: str | Path) -> RppgModel:
    """Load a network that infers pulse waves.

    Args:
      checkpoint: A directory that `sspd_jax convert` or a training wrote.

    Raises:
      UserError: The checkpoint is missing, damaged, or holds another network than it says; or the packages
        that networks need are not installed.

    Example:
      >>> import sspd_jax
      >>> model = sspd_jax.load("data/simulated_faces")
      >>> model.fps, model.crop_size
      (30.0, 42)
    """
    processes.require_whole()
    try:
        # JAX takes seconds to import: not before it is needed.
        from sspd_jax.inference.model import load_model
    except ModuleNotFoundError as error:
        raise (lacking(error) or error) from None
    return load_model(checkpoint)


def read(
    video: Any,
    *,
    fps: float | None = None,
    checkpoint: str | Path | RppgModel | None = None,
    method: str | None = None,
    box: str | Sequence[int] | None = None,
    **settings: Any,
) -> Prediction:
    """Estimate the heart rate of the face in a video.

    Args:
      video: A file: its path, its bytes, an open file or an upload. Or pictures, RGB: [t, h, w, 3] or any
        iterable of [h, w, 3], whole numbers to 255 or fractions to 1. Or an iterable of (time in s, picture).
        `sspd_jax.video.inputs.timed_pictures` says which are understood.
      fps: Frame rate of the pictures in Hz; a file states its own, but is counted at this where it is given.
      checkpoint: A network's directory, or what `load` returned, for 'auto' and 'sspd'; by default the
        network that ships with the package.
      method: 'auto' (the default: classical methods and the network side by side), 'sspd' (the network
        alone), 'pos', 'chrom', …
      box: Where the skin is, where no face can be found: left, top, width, height in pixels of the upright
        picture, or 'picture' for all of it.
      **settings: Fields of `sspd_jax.inference.windows.Settings`: window_s, stride_s, hr_estimator,
        min_confidence, region.

    Returns:
      The prediction: `heart_rate_bpm` (None where there is no reading), `confidence`, `windows`, `wave`, …;
      and `hr(start_s, end_s)` for any slice, from some 1 kB a frame that is kept for it.

    Raises:
      UserError: The video cannot be decoded, shows no face or is too short; one sentence.
      ConfigError: A wrong argument.

    Example:
      Six seconds of a simulated face at 84 bpm:

      >>> import numpy as np, sspd_jax
      >>> from sspd_jax.simulation import sample_video
      >>> frames = sample_video.face_frames(np.arange(90) / 15, bpm=84, seed=0)
      >>> prediction = sspd_jax.read(frames, fps=15)
      >>> f"{prediction.heart_rate_bpm:.0f} bpm by {prediction.method}"
      '84 bpm by auto'
    """
    processes.require_whole()
    from sspd_jax.inference import predict
    from sspd_jax.inference.windows import Settings
    from sspd_jax.video import inputs

    settings = _renamed(settings, 3, model="checkpoint")
    checkpoint = settings.pop("checkpoint", checkpoint)
    options = {
        "method": method or "auto",
        "settings": _settings("read", Settings, settings),
        "keep": True,
        "box": _box(box),
    }
    if fps is not None:
        fps = inputs.rate_of(fps)
    options["model"] = load(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    if inputs.is_file(video):
        with inputs.as_path(video) as (path, name):
            prediction = predict.predict(path, fps=fps, **options)
        return prediction if prediction.file == name else dataclasses.replace(prediction, file=name)
    frames = inputs.timed_pictures(video, fps or 1.0)
    if fps is None:
        raise ConfigError("frames without a file need their rate: read(frames, fps=30)")
    return predict.predict_frames(frames, fps, **options)


def watch(
    frames: Iterable[Any],
    fps: float,
    *,
    checkpoint: str | Path | RppgModel | None = None,
    method: str | None = None,
    box: str | Sequence[int] | None = None,
    every_s: float = 1.0,
    **settings: Any,
) -> Iterator[Update]:
    """Estimate the heart rate as the frames come.

    Args:
      frames: (time in s, picture [h, w, 3] RGB), times increasing, such as
        `sspd_jax.video.camera.camera(0)`; pictures of any kind that `read` understands.
      fps: Their rate in Hz, about.
      checkpoint: See `read`.
      method: See `read`.
      box: See `read`.
      every_s: Time from one update to the next in s, about.
      **settings: See `read`; the stride is not used.

    Returns:
      Iterator of updates, about one every `every_s`.

    Example:
      >>> import numpy as np, sspd_jax
      >>> from sspd_jax.simulation import sample_video
      >>> times_s = np.arange(45) / 15
      >>> frames = sample_video.face_frames(times_s, bpm=84, seed=0)
      >>> for update in sspd_jax.watch(zip(times_s, frames), 15, every_s=2):
      ...     print(f"{update.time_s:.1f} s: {update.window.why}")
      0.0 s: watched for 0 of 10 s
      2.5 s: watched for 2 of 10 s
    """
    processes.require_whole()
    from sspd_jax.inference import live
    from sspd_jax.inference.windows import Settings
    from sspd_jax.video import inputs
    from sspd_jax.video.camera import Feed

    settings = _renamed(settings, 3, reader="checkpoint", model="checkpoint")
    checkpoint = settings.pop("checkpoint", checkpoint)
    ready = settings.pop("settings", None)
    fps = inputs.rate_of(fps)
    return live.watch(
        frames if isinstance(frames, Feed) else inputs.timed_pictures(frames, fps),
        fps,
        model=load(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint,
        method=method or "auto",
        settings=ready or _settings("watch", Settings, settings),
        every_s=every_s,
        box=_box(box),
    )


def _box(box: Any) -> Any:
    from sspd_jax.video.skin_box import SkinBox

    return box if box is None or isinstance(box, SkinBox) else SkinBox.of(box)


def _settings(function: str, kind: type, given: dict[str, Any]) -> Any:
    """Make settings of keyword arguments; the command's names for them are understood, unknown ones named."""
    known = kind.__dataclass_fields__
    given = _renamed(given, 4, read_out="hr_estimator", window="window_s", stride="stride_s")
    for name in given:
        if name not in known:
            every = (*known, "method", "checkpoint", "fps", "box")
            raise ConfigError(f"{function}() has no setting {name!r}{did_you_mean(name, every)}")
    try:
        return kind(**given)
    except TypeError as error:  # text where a number is compared
        raise ConfigError(f"{function}() cannot use {given}: a setting has the wrong type") from error


def _renamed(options: dict[str, Any], level: int, **names: str) -> dict[str, Any]:
    """Give options their new names, and tell callers of the old ones."""
    for old, new in names.items():
        if old in options:
            warnings.warn(f"{old} is called {new} now", DeprecationWarning, stacklevel=level)
            options[new] = options.pop(old)
    return options
