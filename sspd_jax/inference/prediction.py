"""What was estimated from one face of a video, and how it is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sspd_jax.errors import ConfigError, UserError
from sspd_jax.heart_rate.beats import Variability
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import windows
from sspd_jax.inference.advice import advice
from sspd_jax.inference.windows import Segment, Settings, Window
from sspd_jax.runtime.text import percent

UNREAD_S = 1.0  # of a video, if more was left out, the summary says of how much a part was read
if TYPE_CHECKING:
    from sspd_jax.video.skin_traces import Snapshot

TEXT_WINDOWS = 24  # of a long video, so many lines are printed; files hold all


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Heart rates of one face, and what they were estimated from.

    Attributes:
      file: The video.
      method: 'auto', 'sspd' or the name of a classical method.
      hr_estimator: How a rate was estimated from a window's wave.
      heart_rate_bpm: Median of the windows that have a reading in bpm; None where none has.
      confidence: Median of theirs; the highest of all windows where there is no reading.
      segments: Unbroken parts of the recording with their windows, in time.
      variability: Heart-rate variability, where 60 s or more of good signal allow it.
      face_box: Left, top, right, bottom of the last crop in pixels of the video's frames.
      checkpoint: The network's, or None.
      notes: What was left out or done to the video, a sentence each.
      watched_s: How long the video was watched for a face, in s; None where that is not known.
      settings: How the waves became heart rates.
      snapshot: One frame and where its skin is, where the skin was read and it was kept; else None.
    """

    file: str
    method: str
    hr_estimator: str
    heart_rate_bpm: float | None
    confidence: float
    segments: tuple[Segment, ...]
    variability: Variability | None
    face_box: tuple[int, int, int, int]
    checkpoint: str | None
    notes: tuple[str, ...]
    watched_s: float | None = None
    settings: Settings = dataclasses.field(default_factory=Settings)
    snapshot: Snapshot | None = None

    @property
    def windows(self) -> tuple[Window, ...]:
        """All windows, in time."""
        return tuple(window for segment in self.segments for window in segment.windows)

    @property
    def wave(self) -> Wave:
        """The pulse wave of the longest unbroken segment."""
        return max(self.segments, key=lambda segment: segment.wave.duration_s).wave

    @property
    def interval_bpm(self) -> tuple[float, float] | None:
        """The range of the heart rate in bpm, the median of its windows'; None without one."""
        return windows.interval(self.segments)

    @property
    def why(self) -> str:
        """Why there is no reading; '' where there is one."""
        if self.heart_rate_bpm is not None:
            return ""
        return max(self.windows, key=lambda window: window.confidence).why

    @property
    def why_no_variability(self) -> str:
        """Why heart-rate variability is not measured; '' where it is."""
        return "" if self.variability else windows.why_no_variability(self.segments)

    def hr(self, start_s: float, end_s: float) -> Window:
        """Estimate the heart rate of a slice of the video, judged as a window of its own.

        The confidence was fitted on windows of 10 s. A longer slice is one rate, too: where the rate changes
        within it, shorter ones say more.

        Args:
          start_s: Its start in s since the video's first frame.
          end_s: Its end, likewise.

        Returns:
          The window: `heart_rate_bpm` (None where there is no reading, then `why`), `confidence`, …

        Raises:
          ConfigError: The slice is shorter than 4 s, or not inside one unbroken part of what was read.
          UserError: What the rates were read from was not kept, see `predict.predict`.
        """
        if not math.isfinite(start_s) or not math.isfinite(end_s) or end_s <= start_s:
            raise ConfigError(
                f"a slice of {start_s:g} to {end_s:g} s has no length; give its start and end in s"
            )
        if end_s - start_s < windows.MIN_DURATION_S - 1e-6:
            raise ConfigError(
                f"a slice of {end_s - start_s:g} s is too short to hold a few beats; "
                f"give {windows.MIN_DURATION_S:g} s or more, better 10"
            )
        for segment in self.segments:
            if span := segment.span_of(start_s, end_s):
                if segment.judge is None:
                    raise UserError(
                        f"{self.file}: what its rates were read from was not kept; ask `sspd_jax.read`"
                    )
                return segment.judge(*span)
        parts = [(s.wave.start_s, s.wave.start_s + s.wave.duration_s) for s in self.segments]
        parts = ", ".join(f"{start:.1f}–{end:.1f} s" for start, end in parts)
        raise ConfigError(
            f"{self.file}: {start_s:g}–{end_s:g} s does not lie inside what was read, {parts}; give a slice "
            "that does"
        )

    def __str__(self) -> str:
        return "\n".join(describe(self, self.file))

    def __repr__(self) -> str:
        return f"<{next(describe(self, self.file))}>"  # not its pictures and traces

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types; times are seconds since the video's first frame."""
        wave = self.wave
        return {
            "file": self.file,
            "method": self.method,
            "checkpoint": self.checkpoint,
            "heart_rate_bpm": self.heart_rate_bpm,
            "interval_bpm": self.interval_bpm and [round(bpm, 3) for bpm in self.interval_bpm],
            "confidence": round(self.confidence, 4),
            "why": self.why,
            "read_out": self.hr_estimator,  # files keep the name that they always had
            "windows": [windows.as_json(window) for window in self.windows],
            "variability": self.variability and dataclasses.asdict(self.variability),
            "why_no_variability": self.why_no_variability,
            "beats_s": [round(float(t), 4) for segment in self.segments for t in segment.beats_s],
            "face_box": list(self.face_box),
            "notes": list(self.notes),
            "fps": wave.fps,
            "watched_s": None if self.watched_s is None else round(self.watched_s, 3),
            "start_s": wave.start_s,
            "duration_s": wave.duration_s,
            "times_s": [round(float(t), 6) for t in wave.times_s],
            "wave": [float(v) for v in wave.values],
        }


@dataclasses.dataclass(frozen=True)
class Failure:
    """A file, or a face in it, that could not be read.

    Attributes:
      file: The video.
      error: The sentence that says why, and what helps.
    """

    file: str
    error: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types."""
        return dataclasses.asdict(self)


def describe(prediction: Prediction, label: str) -> Iterator[str]:
    """Describe a prediction in lines for people.

    Args:
      prediction: Of a face.
      label: What it is called.

    Yields:
      The rate of the whole, then, where there are several, the windows.

    Example:
      Six seconds of a simulated face at 84 bpm:

      >>> import numpy as np, sspd_jax
      >>> from sspd_jax.simulation import sample_video
      >>> frames = np.stack([*sample_video.face_frames(np.arange(90) / 15, bpm=84, seed=0)])
      >>> prediction = sspd_jax.read(frames, fps=15, method="pos", region="crop")
      >>> for line in describe(prediction, "somebody"):
      ...     print(line)
      somebody: 8... bpm, ...% sure (pos, ... s at 15.00 Hz)
    """
    wave, windows = prediction.wave, prediction.windows
    trusted = sum(window.heart_rate_bpm is not None for window in windows)
    total_s = sum(segment.wave.duration_s for segment in prediction.segments)
    of_all = ""
    if prediction.watched_s is not None and prediction.watched_s - total_s > UNREAD_S:
        of_all = f" of {prediction.watched_s:.1f}"
    how = f"{prediction.method}, {total_s:.1f}{of_all} s at {wave.fps:.2f} Hz"
    if len(windows) > 1:
        how += f", {trusted} of {len(windows)} windows"
    if prediction.heart_rate_bpm is None:
        yield f"{label}: no reading, {prediction.why} ({how})"
        if helps := advice(prediction.why):
            yield f"  what would help: {helps}"
    else:
        yield f"{label}: {prediction.heart_rate_bpm:.1f} bpm, {percent(prediction.confidence)} sure ({how})"
    if len(windows) > 1:
        for window in windows[:TEXT_WINDOWS]:
            end_s = window.start_s + window.duration_s
            yield f"  {window.start_s:7.1f}–{end_s:.1f} s {_in_words(window)}"
        if len(windows) > TEXT_WINDOWS:
            yield f"  … {len(windows) - TEXT_WINDOWS} more; --csv=FILE or --json=FILE writes them all"
    if hrv := prediction.variability:
        yield (
            f"  variability: mean NN {hrv.mean_nn_ms:.0f} ms, SDNN {hrv.sdnn_ms:.0f} ms, "
            f"RMSSD {hrv.rmssd_ms:.0f} ms ({hrv.beats} beats in {hrv.duration_s:.0f} s)"
        )
    for note in prediction.notes:
        yield f"  note: {note}"


def _in_words(window: Window) -> str:
    """Say a window's rate; of one without a reading, what was found and how little it is believed."""
    if window.heart_rate_bpm is not None:
        return f"{window.heart_rate_bpm:6.1f} bpm  {percent(window.confidence)} sure"
    if window.candidate_bpm is None:
        return f"no reading  {window.why}"
    doubt = f"{window.candidate_bpm:.1f} bpm would be {percent(window.confidence)} sure"
    return f"no reading  {window.why} ({doubt})"
