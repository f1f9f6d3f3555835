"""A picture of what was estimated from a video: rates over time with their confidence, wave and spectrum."""

from __future__ import annotations

import collections
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure

from sspd_jax.errors import ConfigError
from sspd_jax.heart_rate import fusion
from sspd_jax.inference import figures
from sspd_jax.inference.prediction import Prediction
from sspd_jax.inference.windows import Segment, Window
from sspd_jax.runtime import storage
from sspd_jax.runtime.text import percent

WAVE_S = 10.0
LEAST_BPM = 20.0  # height of the axis of rates: one bpm must not look like a mountain
SURE = LinearSegmentedColormap.from_list("sure", ["#c6dbef", "#6baed6", "#0072B2", "#08306b"])
TRACK = "#D55E00"  # of the smoothed rate
MOST_REASONS = 4  # in a legend


def write(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Draw predictions and write the picture, see `writing.write_plot`."""
    path = Path(path)
    known = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".") not in known:
        raise ConfigError(f"{path}: cannot be drawn; give a name that ends in {', '.join(known)}")
    data = io.BytesIO()
    draw(predictions).savefig(data, format=path.suffix.removeprefix("."), dpi=110)
    storage.write_bytes(path, data.getvalue())


def draw(predictions: Sequence[Prediction]) -> Figure:
    """Draw predictions, each in a panel of its own with its name, one below the other."""
    figure = Figure(figsize=(12, 3.9 * len(predictions)), layout="constrained")
    panels = figure.subfigures(len(predictions), 1, squeeze=False)[:, 0]
    for panel, name, prediction in zip(panels, _names(predictions), predictions, strict=True):
        _draw_panel(panel, name, prediction)
    return figure


def _names(predictions: Sequence[Prediction]) -> list[str]:
    """Name each by its file, by its path where files have one name, and its faces by their numbers."""
    files = [prediction.file for prediction in predictions]
    short = collections.Counter(Path(file).name for file in set(files))
    names, seen = [], collections.Counter()
    for file in files:
        seen[file] += 1
        name = Path(file).name if short[Path(file).name] == 1 else file
        count = files.count(file)
        names.append(f"{name}, {seen[file]} of {count}" if count > 1 else name)
    return names


def _draw_panel(panel: SubFigure, name: str, prediction: Prediction) -> None:
    bpm = prediction.heart_rate_bpm
    rate = "no reading, at the most" if bpm is None else f"{bpm:.1f} bpm,"
    panel.suptitle(f"{name}: {rate} {percent(prediction.confidence)} sure ({prediction.method})", fontsize=12)
    if prediction.snapshot is None:
        rates, wave, spectrum = panel.subplots(1, 3, width_ratios=(1.5, 1.2, 0.9))
    else:
        face, rates, wave, spectrum = panel.subplots(1, 4, width_ratios=(0.6, 1.5, 1.2, 0.9))
        figures.draw_skin(face, prediction.snapshot)
        face.set_title(f"the skin at {prediction.snapshot.time_s:.1f} s", fontsize=10)
    _draw_rates(rates, prediction)
    best = max(prediction.windows, key=lambda window: window.confidence)
    segment = next(s for s in prediction.segments if best in s.windows)
    _draw_wave(wave, segment, best)
    _draw_spectrum(spectrum, segment, best)


def _draw_rates(axis: Axes, prediction: Prediction) -> None:
    """Draw a line for each window: blue for a reading, dotted grey for a candidate that was refused."""
    reasons: dict[str, list[Window]] = {}
    shown = []
    for window in prediction.windows:
        ends_s = [window.start_s, window.start_s + window.duration_s]
        if window.heart_rate_bpm is not None:
            if window.interval_bpm:
                axis.fill_between(ends_s, *window.interval_bpm, color=SURE(0.2), alpha=0.35, linewidth=0)
            shown += [window.heart_rate_bpm, *(window.interval_bpm or ())]
            line = [window.heart_rate_bpm] * 2
            axis.plot(ends_s, line, color=SURE(window.confidence), linewidth=3, solid_capstyle="butt")
            continue
        reasons.setdefault(window.why, []).append(window)
        if window.candidate_bpm is not None:
            shown.append(window.candidate_bpm)
            axis.plot(ends_s, [window.candidate_bpm] * 2, color=figures.REFUSED, linewidth=1.5, linestyle=":")
    shown += _draw_track(axis, prediction)
    low, high = (min(shown), max(shown)) if shown else (60.0, 60.0)
    spare = max(0.15 * (high - low), (LEAST_BPM - (high - low)) / 2, 3)
    axis.set(xlabel="s", ylabel="bpm", ylim=(low - spare, high + spare), title="heart rate")
    axis.title.set_fontsize(10)
    axis.grid(color="#eeeeee")
    if len(reasons) < len(prediction.windows) and any(w.heart_rate_bpm for w in prediction.windows):
        bar = ScalarMappable(Normalize(0, 1), SURE)
        axis.figure.colorbar(bar, ax=axis, label="how sure", pad=0.01, aspect=30, format="{x:.0%}")
    _add_reasons(axis, reasons)


def _draw_track(axis: Axes, prediction: Prediction) -> list[float]:
    """Draw the smoothed rate with its band, one line for each unbroken part; returns the rates on it."""
    shown: list[float] = []
    for segment in prediction.segments:
        on = [window for window in segment.windows if window.smoothed_bpm is not None]
        if not on:
            continue
        middles_s = [window.start_s + window.duration_s / 2 for window in on]
        low, high = np.transpose([window.smoothed_interval_bpm for window in on])
        rates = [window.smoothed_bpm for window in on]
        axis.plot(middles_s, rates, color=TRACK, linewidth=1.2, label=None if shown else "smoothed")
        axis.fill_between(middles_s, low, high, color=TRACK, alpha=0.12, linewidth=0)
        shown += rates
    return shown


def _add_reasons(axis: Axes, reasons: dict[str, list[Window]]) -> None:
    """Say below the axis why windows were refused, and how sure they were."""
    order = sorted(reasons.items(), key=lambda item: -len(item[1]))
    for why, refused in order[:MOST_REASONS]:
        sure = sorted(window.confidence for window in refused)
        span = "–".join(dict.fromkeys(percent(share) for share in (sure[0], sure[-1])))
        count = "1 window" if len(refused) == 1 else f"{len(refused)} windows"
        label = f"no reading, {count}, {span} sure: {why}"
        axis.plot([], [], color=figures.REFUSED, linewidth=1.5, linestyle=":", label=_folded(label))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False)


def _folded(text: str, width: int = 70) -> str:
    return "\n".join(textwrap.wrap(text, width))


def _draw_wave(axis: Axes, segment: Segment, best: Window) -> None:
    """Draw the ten seconds of the highest confidence."""
    start_s = best.start_s
    figures.draw_wave(axis, segment, start_s, start_s + max(WAVE_S, best.duration_s))
    axis.set(xlabel="s", ylabel="pulse wave (no unit)", title="the surest window, slow drift taken off")
    axis.title.set_fontsize(10)
    axis.legend(fontsize=8, loc="lower right", framealpha=0.85)


def _draw_spectrum(axis: Axes, segment: Segment, best: Window) -> None:
    """Draw the spectrum of the same window's wave, and where in it the rates lie."""
    wave = segment.wave
    start, end = segment.span_of(best.start_s, best.start_s + best.duration_s)
    try:
        hz, share = fusion.power_shares(wave.values[start:end], wave.fps)
    except ValueError:  # so few frames a second hold no spectrum
        axis.set_axis_off()
        return
    axis.fill_between(60 * hz, share / share.max(), color=figures.WAVE, alpha=0.2, linewidth=0)
    axis.plot(60 * hz, share / share.max(), color=figures.WAVE, linewidth=1, label="wave")
    rates = {name: bpm for name, bpm in best.estimates_bpm.items() if np.isfinite(bpm)}
    for number, (name, bpm) in enumerate(rates.items()):
        colour = figures.ESTIMATORS.get(name, figures.OTHER)
        axis.plot(bpm, 1.06 + 0.06 * number, "v", color=colour, markersize=5, label=f"{name} {bpm:.1f}")
    if best.candidate_bpm is not None:
        axis.axvline(
            best.candidate_bpm,
            color="#222222",
            linewidth=0.8,
            linestyle="--",
            label=f"{best.candidate_bpm:.1f}",
        )
    axis.set(xlabel="bpm", yticks=[], title="its spectrum", ylim=(0, 1.12 + 0.06 * len(rates)))
    axis.title.set_fontsize(10)
    axis.legend(fontsize=8, loc="upper right", framealpha=0.85)
