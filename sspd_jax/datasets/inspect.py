"""Draw a picture of a recording, so that a person can check it: face box, skin, colours, wave, rate, gaps."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sspd_jax.datasets import check
from sspd_jax.datasets.recording import Recording
from sspd_jax.heart_rate import classical, rate
from sspd_jax.video import face_stream, resample
from sspd_jax.video.face_detection import FaceBox, FaceDetector
from sspd_jax.video.face_mesh import FaceRegion, load_networks
from sspd_jax.video.face_track import CROP_SIDE
from sspd_jax.video.skin_traces import SkinRecorder, SkinTraces

CHANNELS = {"red": "#D55E00", "green": "#009E73", "blue": "#0072B2"}  # Okabe and Ito's
SHOWN = 3  # frames
THUMB = 240  # pixels, the longer side
FPS = check.FPS
MAX_GAP_S = 0.5
LEAST_BPM = 30.0  # that the axis spans: a tenth of a beat is no difference


class Overview(NamedTuple):
    """What is drawn of a recording.

    Attributes:
      times_s: Times of the frames from the first face on, float64 [t], s.
      colours: Mean colours of the face crop, float64 [t, 3] RGB, grey levels.
      thumbs: Time in s, small picture and its scale, at the beginning, the middle and the end.
      box: Box of the face, pixels of the frames.
      skin: What was seen of the skin, see `SkinTraces`: what `prepare` records and `predict` reads.
      maps: Time in s of a small picture → where the skin is in it, float32 [h, w], 0 to 1.
      video_bpm: Start in s, end in s and heart rate in bpm of every window, estimated by POS.
      true_bpm: The same, estimated from the contact pulse wave.
    """

    times_s: np.ndarray
    colours: np.ndarray
    thumbs: list[tuple[float, np.ndarray, float]]
    box: FaceBox
    video_bpm: list[tuple[float, float, float]]
    true_bpm: list[tuple[float, float, float]]
    skin: SkinTraces | None = None
    maps: Mapping[float, np.ndarray] = MappingProxyType({})


def make_overview(recording: Recording, detector: FaceDetector | None = None) -> Overview:
    """Read all of a recording, in bounded memory.

    Args:
      recording: Recording that a reader lists.
      detector: Face detector; Haar's if not given.

    Returns:
      What is drawn of it.

    Raises:
      UserError: It cannot be read, or shows no face.

    Example:
      Two seconds of a simulated face, whose crop is looked at in every frame:

      >>> from pathlib import Path
      >>> from sspd_jax.simulation import sample_video
      >>> def frames():
      ...     times_s = np.arange(30) / 15
      ...     yield from zip(times_s, sample_video.face_frames(times_s, bpm=84, seed=0))
      >>> overview = make_overview(Recording("visit1", "anna", frames, None, Path("visit1.avi")))
      >>> overview.colours.shape, len(overview.thumbs), overview.true_bpm
      ((30, 3), 2, [])
    """
    thumbs: list[tuple[float, np.ndarray, float]] = []
    recorder, maps = SkinRecorder(load_networks()[0]), {}
    frames = _mapping(_keeping(recording.frames(), thumbs), recorder, thumbs, maps)
    clip = face_stream.cut_face(frames, recording.file, size=32, resize="area", detector=detector)
    times_s, colours = [], []
    with closing(clip):
        for time_s, crop in clip:
            times_s.append(time_s)
            colours.append(crop.mean((0, 1), np.float64))
    times_s, colours = np.array(times_s), np.array(colours)
    skin = recorder.finish()
    _map_missing(recorder, np.inf, thumbs, maps)
    chosen = [thumbs[round(k)] for k in np.linspace(0, len(thumbs) - 1, min(SHOWN, len(thumbs)))]
    true_bpm = [] if recording.ppg is None else check.heart_rates(recording.ppg, MAX_GAP_S)
    drawn = {t: _in_picture(maps[t], skin, t, small, scale) for t, small, scale in chosen if t in maps}
    return Overview(
        times_s, colours, chosen, clip.box, _rates_by_pos(times_s, colours), true_bpm, skin, drawn
    )


def _mapping(frames, recorder: SkinRecorder, thumbs: list, maps: dict) -> Iterator[tuple[float, np.ndarray]]:
    """Record frames that pass through, and keep the skin's map at the time of every small picture."""
    for time_s, rgb in frames:
        for recorded_s in recorder.see(time_s, rgb)[-1:]:
            _map_missing(recorder, recorded_s, thumbs, maps)
        yield time_s, rgb


def _map_missing(recorder: SkinRecorder, until_s: float, thumbs: list, maps: dict) -> None:
    kept = {time_s for time_s, *_ in thumbs}
    for time_s in set(maps) - kept:
        del maps[time_s]
    for time_s in kept - set(maps):
        if time_s <= until_s and (found := recorder.skin_at(time_s)) is not None:
            maps[time_s] = found


def _in_picture(
    of_crop: np.ndarray, skin: SkinTraces, time_s: float, small: np.ndarray, scale: float
) -> np.ndarray:
    """Lay a map of the aligned crop into a small picture, float32 [h, w]; 0 where the face was not found."""
    height, width = small.shape[:2]
    nearest = np.abs(skin.time_s - time_s).argmin()
    x, y, spread, angle = skin.geometry[nearest]
    if not np.isfinite(x):
        return np.zeros((height, width), np.float32)
    region = FaceRegion(x, y, spread * CROP_SIDE, angle)
    matrix = region.to_picture(len(of_crop)) * scale
    return cv2.warpAffine(np.asarray(of_crop, np.float32), matrix, (width, height))


def _keeping(frames, thumbs: list) -> Iterator[tuple[float, np.ndarray]]:
    """Pass frames on and keep small ones of some, evenly over the time, 16 at most."""
    step_s = 1.0
    for time_s, rgb in frames:
        if not thumbs or time_s >= thumbs[-1][0] + step_s:
            scale = min(1.0, THUMB / max(rgb.shape[:2]))
            small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            thumbs.append((time_s, small, scale))
            if len(thumbs) > 16:
                del thumbs[1::2]
                step_s *= 2
        yield time_s, rgb


def _rates_by_pos(times_s: np.ndarray, colours: np.ndarray) -> list[tuple[float, float, float]]:
    """Estimate the heart rate from the face's colours by POS, in windows of 10 s without a gap."""
    found = []
    for start_s, end_s in check.stretches(times_s, MAX_GAP_S):
        inside = (times_s >= start_s) & (times_s <= end_s)
        if end_s - start_s < check.LEAST_WINDOW_S:
            continue
        ticks_s = start_s + np.arange(int((end_s - start_s) * FPS)) / FPS
        trace = [resample.resample_wave(c[inside], times_s[inside], ticks_s) for c in colours.T]
        wave = classical.read_trace("pos", np.stack(trace, 1), FPS)
        length = min(len(wave), round(check.WINDOW_S * FPS))
        for first in range(0, len(wave) - length + 1, length):
            bpm = rate.spectral_peak_rate(np.asarray(wave[first : first + length], np.float64), FPS)
            if np.isfinite(bpm):
                found.append((ticks_s[first], ticks_s[first] + length / FPS, bpm))
    return found


def draw(recording: Recording, overview: Overview) -> bytes:
    """Draw a recording.

    Args:
      recording: Recording that a reader lists.
      overview: What to draw of it.

    Returns:
      The picture, PNG.

    Example:
      >>> from pathlib import Path
      >>> overview = Overview(np.arange(3) / 30, np.ones((3, 3)), [], FaceBox(0, 0, 8, 8), [], [])
      >>> draw(Recording("visit1", "anna", iter, None, Path("visit1.avi")), overview)[1:4]
      b'PNG'
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    top, below = figure.subfigures(2, 1, height_ratios=(1, 2.2))
    title = f"{recording.recording_id} · {recording.person_id} · {recording.meta.get('dataset', '')}"
    top.suptitle(_drawable(title))
    _draw_thumbs(top.subplots(1, SHOWN), overview)
    colours, of_skin, wave, rates = axes = below.subplots(4, 1, sharex=True)
    _draw_colours(colours, "colour of the crop,", overview.times_s, overview.colours)
    skin = overview.skin
    if skin is None or not skin.found.any():
        of_skin.text(0.5, 0.5, "no skin was found", transform=of_skin.transAxes, ha="center")
    else:
        _draw_colours(of_skin, "colour of the skin,", skin.time_s[skin.found], skin.skin[skin.found])
    parts = check.stretches(overview.times_s, MAX_GAP_S)
    for (_, end_s), (start_s, _) in itertools.pairwise(parts):
        for axis in axes:
            axis.axvspan(end_s, start_s, color="#CCCCCC")
    wave.set_ylabel("contact pulse wave")
    if recording.ppg is None:
        wave.text(0.5, 0.5, "none", transform=wave.transAxes, ha="center")
    else:
        wave.plot(recording.ppg.times_s, recording.ppg.values, color="#333333", linewidth=0.8)
    _draw_rates(rates, recording, overview)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    return data.getvalue()


def _draw_thumbs(axes, overview: Overview) -> None:
    for axis, (time_s, small, scale) in zip(axes, overview.thumbs, strict=False):
        axis.imshow(small)
        box = overview.box
        corner, size = (box.left * scale, box.top * scale), (box.width * scale, box.height * scale)
        axis.add_patch(Rectangle(corner, *size, fill=False, color=CHANNELS["red"], linewidth=2))
        if (there := overview.maps.get(time_s)) is not None and there.max() > 0.5:
            axis.contour(there, levels=[0.5], colors=CHANNELS["green"], linewidths=1)
        axis.set_title(f"{time_s:.1f} s", fontsize=9)
        axis.axis("off")


def _draw_colours(axis, what: str, times_s: np.ndarray, colours: np.ndarray) -> None:
    # A line does not run across a gap.
    breaks = np.flatnonzero(np.diff(times_s) > MAX_GAP_S) + 1
    times_s = np.insert(times_s, breaks, np.nan)
    for channel, (name, colour) in zip(colours.T, CHANNELS.items(), strict=True):
        values = np.insert(channel - channel.mean(), breaks, np.nan)
        axis.plot(times_s, values, color=colour, linewidth=0.8, label=name)
    axis.set_ylabel(f"{what}\ngrey levels")
    axis.legend(loc="upper right", fontsize=8)


def _draw_rates(axis, recording: Recording, overview: Overview) -> None:
    by_device = [] if recording.ppg is None else check.device_rates(recording)
    if by_device:
        axis.plot(*zip(*by_device, strict=True), color="#E69F00", linewidth=1.5, label="the device's number")
    for windows, colour, name in (
        (overview.true_bpm, "#333333", "from the wave"),
        (overview.video_bpm, "#0072B2", "from the video, by POS"),
    ):
        for number, (start_s, end_s, bpm) in enumerate(windows):
            label = name if number == 0 else None
            axis.plot([start_s, end_s], [bpm, bpm], color=colour, linewidth=3, label=label)
    low, high = axis.get_ylim()
    middle, half = (low + high) / 2, max(LEAST_BPM, high - low) / 2
    axis.set_ylim(middle - half, middle + half)
    axis.set_ylabel("heart rate, bpm")
    axis.set_xlabel("time, s (grey: no frames)")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper right", fontsize=8)


def _drawable(text: str) -> str:
    """Replace the letters that matplotlib's own font lacks, such as Chinese ones."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in text)
