"""Pictures of what a heart rate was read from.

Okabe and Ito's colours, told apart by the colour-blind. Each function returns a figure of matplotlib.
"""

from __future__ import annotations

import base64
import html
import io
import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import signal

from sspd_jax.heart_rate import fusion
from sspd_jax.heart_rate.skin_evidence import TREMBLE, SkinWindow
from sspd_jax.heart_rate.wave import without_drift
from sspd_jax.inference.skin_reading import Weighed
from sspd_jax.inference.windows import Segment, Window
from sspd_jax.video.skin_traces import Snapshot

DPI = 100
GIVEN, REFUSED, WAVE = "#0072B2", "#8a8a8a", "#333333"
RGB = {"red": "#D55E00", "green": "#009E73", "blue": "#0072B2"}
TRACK = {
    "right": ("#0072B2", "-"),
    "down": ("#D55E00", "-"),
    "size": ("#009E73", "-"),
    "turn": ("#CC79A7", "-"),
    "yaw": ("#0072B2", ":"),
    "pitch": ("#D55E00", ":"),
    "roll": ("#CC79A7", ":"),
}
ESTIMATORS = {
    "fused": "#222222",
    "green": "#009E73",
    "pos": "#D55E00",
    "chrom": "#E69F00",
    "omit": "#56B4E9",
    "sspd": "#0072B2",
}
OTHER = "#CC79A7"  # of an estimator beside these
LEAST_SKIN = 0.2  # of the map, from which a pixel counts for where the face is
SKIN = np.array([0, 158, 115])  # the map's colour in the picture: no skin is green


def embed(figure: Figure, alt: str) -> str:
    """Return a figure as an HTML image that needs no other file.

    Example:
      >>> embed(Figure(figsize=(1, 1)), "an empty page")[:41]
      '<img alt="an empty page" src="data:image/'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def draw_face(snapshot: Snapshot) -> Figure:
    """Draw a frame and, beside it and nearer, where in it the skin is."""
    figure = Figure(figsize=(6.4, 3), layout="constrained")
    whole, near = figure.subplots(1, 2)
    whole.imshow(snapshot.picture)
    whole.set_title(f"frame at {snapshot.time_s:.1f} s", fontsize=10)
    whole.set_axis_off()
    draw_skin(near, snapshot)
    near.set_title("skin that is read", fontsize=10)
    return figure


def draw_skin(axis: Axes, snapshot: Snapshot) -> None:
    """Draw a face from near, the skin that is read in it marked."""
    skin = 0.6 * snapshot.skin[..., None]
    axis.imshow(np.rint(snapshot.picture * (1 - skin) + SKIN * skin).astype(np.uint8))
    rows, columns = (np.flatnonzero((snapshot.skin > LEAST_SKIN).any(side)) for side in (1, 0))
    if len(rows):
        margin = 0.3 * max(len(rows), len(columns))
        height, width = snapshot.skin.shape
        axis.set_xlim(max(columns[0] - margin, -0.5), min(columns[-1] + margin, width - 0.5))
        axis.set_ylim(min(rows[-1] + margin, height - 0.5), max(rows[0] - margin, -0.5))
    axis.set_axis_off()


def draw_course(segment: Segment) -> Figure:
    """Draw the skin's colours, the wave with its beats, and the face's motion, one above the other."""
    traces, fps = segment.skin.traces, segment.skin.fps
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    colour, wave, motion = figure.subplots(3, 1, sharex=True, height_ratios=(1.1, 1, 1.1))
    time_s = traces.time_s
    for name, values in zip(RGB, traces.skin.T, strict=True):
        change = 100 * without_drift(values / values.mean() - 1, fps)
        colour.plot(time_s, change, color=RGB[name], linewidth=0.9, label=name)
    colour.set_title("colour of the skin, change in %, slow drift taken off", loc="left", fontsize=10)
    draw_wave(wave, segment, time_s[0], time_s[-1])
    wave.set_title("pulse wave, slow drift taken off", loc="left", fontsize=10)
    moved = signal.detrend(segment.skin.track, axis=0) / TREMBLE
    for (name, (line_colour, style)), values in zip(TRACK.items(), moved.T, strict=True):
        motion.plot(time_s, values, color=line_colour, linestyle=style, linewidth=0.9, label=name)
    motion.set_title(
        "motion of the face, in units of what a still one's track trembles", loc="left", fontsize=10
    )
    motion.set(xlabel="s", xlim=(time_s[0], time_s[-1] + 1 / fps))
    for axis in (colour, wave, motion):
        _shade(axis, segment.windows)
        axis.grid(color="#eeeeee")
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _shade(axis: Axes, windows: tuple[Window, ...]) -> None:
    """Lay a grey ground under the seconds of which no window has a reading."""
    given = [(w.start_s, w.start_s + w.duration_s) for w in windows if w.heart_rate_bpm is not None]
    edges = sorted({edge for w in windows for edge in (w.start_s, w.start_s + w.duration_s)})
    for start_s, end_s in itertools.pairwise(edges):
        if not any(first <= start_s and end_s <= last for first, last in given):
            axis.axvspan(start_s, end_s, color="#f3f3f3", linewidth=0, zorder=0)


def draw_wave(axis: Axes, segment: Segment, start_s: float, end_s: float) -> None:
    """Draw the wave from one moment to another, s, and mark its beats on its peaks."""
    times_s, values = segment.wave.times_s, without_drift(segment.wave.values, segment.wave.fps)
    shown = (times_s >= start_s) & (times_s <= end_s)
    axis.plot(times_s[shown], values[shown], color=WAVE, linewidth=1, label="wave")
    if shown.any():
        peaks = peaks_near(segment)
        peaks = peaks[shown[peaks]]
        if len(peaks):
            axis.plot(times_s[peaks], values[peaks], "o", color=GIVEN, markersize=4, label="beats")
    axis.set(yticks=[])


def peaks_near(segment: Segment) -> np.ndarray:
    """Return the sample of the drawn wave that is highest near each beat, int64 [beats].

    A beat is a moment of the wave without its noise; the drawn wave has its peak some frames beside.
    """
    wave = segment.wave
    values = without_drift(wave.values, wave.fps)
    reach = 0.25 * (60 / _rate(segment)) * wave.fps
    highest = []
    for beat_s in segment.beats_s:
        middle = (beat_s - wave.start_s) * wave.fps
        low = max(0, round(middle - reach))
        part = values[low : round(middle + reach) + 1]
        if len(part):
            highest.append(low + int(part.argmax()))
    return np.array(sorted(set(highest)), int)


def _rate(segment: Segment) -> float:
    found = [w.heart_rate_bpm for w in segment.windows if w.heart_rate_bpm is not None]
    return float(np.median(found)) if found else 75.0


def draw_spectra(seen: SkinWindow, weighed: Weighed, window: Window) -> Figure:
    """Draw the fused spectrum and each estimator's, one below the other, with the rate that each finds."""
    hz, shares = fusion.power_shares(np.stack(list(seen.waves.values())), seen.fps)
    spectra = {"fused": (weighed.fused.hz, weighed.fused.share)}
    spectra |= {
        name: (hz, share)
        for name, share, wave in zip(seen.waves, shares, seen.waves.values(), strict=True)
        if np.isfinite(wave).all()
    }
    figure = Figure(figsize=(6.4, 0.5 + 0.62 * len(spectra)), layout="constrained")
    axes = figure.subplots(len(spectra), 1, sharex=True, squeeze=False)[:, 0]
    rates = {**weighed.estimates_bpm, "fused": weighed.fused.bpm}
    for axis, (name, (at_hz, share)) in zip(axes, spectra.items(), strict=True):
        colour = ESTIMATORS.get(name, OTHER)
        height = share / share.max()
        axis.fill_between(60 * at_hz, height, color=colour, alpha=0.25, linewidth=0)
        axis.plot(60 * at_hz, height, color=colour, linewidth=1.2, label=name)
        axis.axvline(weighed.bpm, color="#222222", linewidth=0.8, linestyle="--")
        if window.interval_bpm:
            axis.axvspan(*window.interval_bpm, color=GIVEN, alpha=0.12, linewidth=0)
        bpm = rates.get(name, np.nan)
        axis.plot(bpm, 1.08, "v", color=colour, markersize=6, clip_on=False, label="rate")
        axis.set(yticks=[], ylim=(0, 1.05), xlim=(60 * fusion.BAND_HZ[0], 60 * fusion.BAND_HZ[1]))
        label = name if name == "fused" else name.upper()
        axis.text(1.01, 0.5, f"{label}  {bpm:.1f}", transform=axis.transAxes, va="center", fontsize=9)
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[-1].set_xlabel("bpm")
    return figure
