"""A picture of what was estimated from a video: rates over time with their confidence, and the wave."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sspd_jax.errors import ConfigError
from sspd_jax.inference.prediction import Prediction
from sspd_jax.runtime import storage

TRUSTED, REFUSED, WAVE = "#0072B2", "#999999", "#333333"  # Okabe and Ito's blue, and greys
WAVE_S = 10.0


def write(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Draw predictions and write the picture, see `prediction.write_plot`."""
    path = Path(path)
    figure = Figure(figsize=(10, 3.4 * len(predictions)), layout="constrained")
    known = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".") not in known:
        raise ConfigError(f"{path}: cannot be drawn; give a name that ends in {', '.join(known)}")
    axes = figure.subplots(len(predictions), 2, squeeze=False, width_ratios=(1.3, 1))
    for (rates, wave), prediction in zip(axes, predictions, strict=True):
        _draw_rates(rates, prediction)
        _draw_wave(wave, prediction)
    data = io.BytesIO()
    figure.savefig(data, format=path.suffix.removeprefix("."), dpi=110)
    storage.write_bytes(path, data.getvalue())


def _draw_rates(axis, prediction: Prediction) -> None:
    for window in prediction.windows:
        end_s = window.start_s + window.duration_s
        if window.heart_rate_bpm is not None:
            axis.plot(
                [window.start_s, end_s],
                [window.heart_rate_bpm] * 2,
                color=TRUSTED,
                linewidth=1 + 4 * window.confidence,
                alpha=0.35 + 0.5 * window.confidence,
                solid_capstyle="butt",
            )
        elif window.candidate_bpm is not None:
            line = [window.candidate_bpm] * 2
            axis.plot([window.start_s, end_s], line, color=REFUSED, linewidth=1, linestyle=":")
    bpm = prediction.heart_rate_bpm
    rate = "no reading" if bpm is None else f"{bpm:.1f} bpm, {prediction.confidence:.0%} sure"
    axis.set_title(f"{Path(prediction.file).name}: {rate} ({prediction.method})", fontsize=10)
    axis.set(xlabel="s", ylabel="bpm", ylim=(36, 216) if bpm is None else None)
    axis.grid(color="#eeeeee")
    axis.margins(y=0.3)


def _draw_wave(axis, prediction: Prediction) -> None:
    """Draw the ten seconds of the highest confidence."""
    best = max(prediction.windows, key=lambda window: window.confidence)
    segment = next(s for s in prediction.segments if best in s.windows)
    times_s = segment.wave.times_s
    shown = (times_s >= best.start_s) & (times_s < best.start_s + max(WAVE_S, best.duration_s))
    axis.plot(times_s[shown], segment.wave.values[shown], color=WAVE, linewidth=1)
    beats = segment.beats_s[(segment.beats_s >= times_s[shown][0]) & (segment.beats_s <= times_s[shown][-1])]
    heights = np.interp(beats, times_s, segment.wave.values)
    axis.plot(beats, heights, "o", color=TRUSTED, markersize=4, label="beats")
    axis.set(xlabel="s", yticks=[], title="pulse wave")
    axis.title.set_fontsize(10)
    if len(beats):
        axis.legend(fontsize=8, loc="upper right")
