"""The pictures of a report: what people look at before they believe a number.

Okabe and Ito's colours, told apart by the colour-blind; beside them markers, line styles or places, so that
grey print says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sspd_jax.evaluation import alignment, protocol
from sspd_jax.evaluation.metrics import Score, limits_of_agreement, rate_range
from sspd_jax.evaluation.protocol import Protocol
from sspd_jax.evaluation.render import fixed
from sspd_jax.evaluation.scoring import part_of
from sspd_jax.evaluation.summary import NAMES, main_span
from sspd_jax.evaluation.table import Row
from sspd_jax.heart_rate.rate import hann_periodogram
from sspd_jax.method import self_similarity, views
from sspd_jax.method.network import Network

if TYPE_CHECKING:
    from sspd_jax.datasets.dataset import PreparedDataset
    from sspd_jax.evaluation.scoring import Sample
    from sspd_jax.inference.model import RppgModel


TRUTH = "#000000"
COLOURS = {
    "online": "#56B4E9",
    "target": "#0072B2",
    "network": "#0072B2",
    "untrained": "#999999",
    "auto": "#882255",
    "green": "#009E73",
    "chrom": "#E69F00",
    "pos": "#D55E00",
    "ica": "#CC79A7",
    "pbv": "#F0E442",
    "lgi": "#7F7F7F",
    "omit": "#4D4D4D",
}
MARKERS = {
    "untrained": "x",
    "auto": "X",
    "green": "^",
    "chrom": "s",
    "pos": "D",
    "ica": "v",
    "pbv": "P",
    "lgi": "*",
    "omit": "+",
}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
MOST_VIDEOS = 12  # in a picture of heart rates over time
MOST_TOLD = 10  # windows of a video whose confidence is written beside them
MOST_SHOWN = 4  # methods side by side


def style_of(method: str) -> dict[str, Any]:
    """Return colour and marker of a method."""
    return {"color": COLOURS.get(method, "#333333"), "marker": MARKERS.get(method, "o")}


def shown_methods(rows: Sequence[Row], primary: str) -> list[str]:
    """Choose the methods for pictures side by side: the primary one, then those that say most beside it."""
    there = {row.method for row in rows}
    order = [primary, "auto", "pos", "chrom", "untrained", "green", *sorted(there)]
    return [name for name in dict.fromkeys(order) if name in there][:MOST_SHOWN]


def draw_rates(rows: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Draw predicted against true heart rate, a method to a panel."""
    figure, axes = _panels(len(methods), 3.2)  # on one scale: methods are compared by eye
    chosen = [row for row in rows if row.span == main_span(rows)]
    low, high = _limits([v for row in chosen for v in (row.true_bpm, row.predicted_bpm)])
    for axis, name in zip(axes, methods, strict=True):
        mine = [row for row in chosen if row.method == name]
        axis.plot([low, high], [low, high], color="#888", linewidth=1, zorder=0)
        axis.scatter(
            [row.true_bpm for row in mine],
            [row.predicted_bpm for row in mine],
            s=20,
            alpha=0.75,
            linewidth=1,
            **style_of(name),
        )
        axis.set(title=NAMES.get(name, name), xlabel="true, bpm", xlim=(low, high), ylim=(low, high))
        axis.set_aspect("equal")
    axes[0].set_ylabel("predicted, bpm")
    return figure


def draw_bland_altman(rows: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Draw the difference of predicted and true rate over their mean, with bias and limits of agreement."""
    figure, axes = _panels(len(methods), 3.2)
    chosen = [row for row in rows if row.span == main_span(rows)]
    for axis, name in zip(axes, methods, strict=True):
        mine = [row for row in chosen if row.method == name]
        predicted = np.array([row.predicted_bpm for row in mine])
        true = np.array([row.true_bpm for row in mine])
        axis.axhline(0, color="#bbb", linewidth=1, label="no difference")
        axis.scatter(
            (predicted + true) / 2, predicted - true, s=20, alpha=0.75, linewidth=1, **style_of(name)
        )
        bias, low, high = limits_of_agreement(predicted, true)
        title = NAMES.get(name, name)
        if np.isfinite(bias):
            axis.axhline(bias, color=TRUTH, linewidth=1.2, label="bias")
            for limit, label in ((low, "limits of agreement"), (high, None)):
                axis.axhline(limit, color=TRUTH, linewidth=1.2, linestyle="--", label=label)
            told = (fixed(bias, sign=True), fixed(low, 1, sign=True), fixed(high, 1, sign=True))
            title += "\nbias {}, limits {} to {} bpm".format(*told)
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="mean of both, bpm")
    axes[0].set_ylabel("predicted − true, bpm")
    lines = {
        label: line
        for axis in axes
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
        if line in axis.lines
    }
    figure.legend(lines.values(), lines, loc="outside lower right", ncols=3, fontsize=8, frameon=False)
    return figure


def draw_over_time(rows: Sequence[Row], primary: str) -> Figure:
    """Draw the primary method's heart rate over time beside the true one, a video to a panel.

    Filled where the confidence, written above, is enough for a reading; hollow where it is not. The first 12
    videos.
    """
    mine = [row for row in rows if row.method == primary and row.span == main_span(rows)]
    videos = list(dict.fromkeys(row.recording for row in mine))[:MOST_VIDEOS]
    columns = min(4, len(videos))
    lines = -(-len(videos) // columns)
    figure = Figure(figsize=(11, 0.6 + 1.8 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axis in axes[len(videos) :]:
        axis.axis("off")
    low, high = _limits([v for row in mine for v in (row.true_bpm, row.predicted_bpm)])
    for axis, video in zip(axes, videos, strict=False):
        part = sorted((row for row in mine if row.recording == video), key=lambda row: row.start_s)
        _draw_video(axis, part, primary)
        axis.set_ylim(low, high + 10)
    for axis in axes[::columns]:
        axis.set_ylabel("bpm", fontsize=8)
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    figure.supxlabel("s", fontsize=8)
    return figure


def _draw_video(axis: Axes, rows: Sequence[Row], primary: str) -> None:
    """Draw the windows of a video, in their order."""
    middle = np.array([row.start_s + row.duration_s / 2 for row in rows])
    # Wide and pale, so that it is seen where the two agree.
    wide = {"color": "#BBBBBB", "linewidth": 5, "marker": "s", "markersize": 9}
    axis.plot(middle, [row.true_bpm for row in rows], label="true", **wide)
    rates = np.array([row.predicted_bpm for row in rows])
    own, label = COLOURS.get(primary, "#333333"), NAMES.get(primary, primary)
    axis.plot(middle, rates, color=own, linewidth=0.8, marker="o", markersize=5, label=label)
    sure = np.array([not row.why for row in rows])
    if not sure.all():
        hollow = {"color": own, "markerfacecolor": "white", "label": "not sure"}
        axis.plot(middle[~sure], rates[~sure], "o", markersize=5, **hollow)
    for row, at in zip(rows, middle, strict=True):
        if np.isfinite(row.confidence) and len(rows) <= MOST_TOLD:
            beside = {"textcoords": "offset points", "xytext": (0, 7), "ha": "center", "fontsize": 6.5}
            axis.annotate(f"{row.confidence:.2f}", (at, row.predicted_bpm), **beside)
    axis.set(title=rows[0].recording, xlim=(0, max(row.start_s + row.duration_s for row in rows)))
    axis.title.set_fontsize(8)
    axis.tick_params(labelsize=7)


def draw_by_range(rows: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Draw each method's absolute errors by the range of the true rate, with their medians."""
    chosen = [row for row in rows if row.span == main_span(rows) and np.isfinite(row.predicted_bpm)]
    ranges = list(dict.fromkeys(rate_range(row.true_bpm) for row in sorted(chosen, key=lambda r: r.true_bpm)))
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / max(1, len(methods))
    spread = np.random.default_rng(0)
    for i, name in enumerate(methods):
        for j, name_of_range in enumerate(ranges):
            errors = np.array(
                [
                    abs(row.error_bpm)
                    for row in chosen
                    if row.method == name and rate_range(row.true_bpm) == name_of_range
                ]
            )
            if not len(errors):
                continue
            at = j + (i - (len(methods) - 1) / 2) * width
            jitter = at + width * spread.uniform(-0.25, 0.25, len(errors))
            axis.scatter(jitter, np.maximum(errors, 0.01), s=14, alpha=0.6, linewidth=0.8, **style_of(name))
            line = np.median(np.maximum(errors, 0.01))
            axis.plot([at - 0.4 * width, at + 0.4 * width], [line, line], color=TRUTH, linewidth=2)
        axis.scatter([], [], label=NAMES.get(name, name), **style_of(name))
    counts = [
        len({(r.recording, r.start_s) for r in chosen if rate_range(r.true_bpm) == name}) for name in ranges
    ]
    axis.set_xticks(range(len(ranges)), [f"{r}\n(n = {n})" for r, n in zip(ranges, counts, strict=True)])
    axis.axhline(3, color="#bbb", linewidth=1, zorder=0)
    axis.set(
        yscale="log",
        ylabel="|error|, bpm (0.01 at the least)",
        xlabel="true heart rate; the bars are medians",
    )
    axis.legend(
        fontsize=8, ncols=max(1, len(methods)), loc="upper left", bbox_to_anchor=(0, 1.18), frameon=False
    )
    return figure


def draw_waves(rows: Sequence[Row], samples: Sequence[Sample], primary: str, p: Protocol) -> Figure:
    """Draw waves and spectra of the primary method's windows of smallest, median and largest error."""
    mine = [row for row in rows if row.method == primary and row.span == main_span(rows)]
    mine = sorted((row for row in mine if np.isfinite(row.error_bpm)), key=lambda row: abs(row.error_bpm))
    places = {0: "best"} if len(mine) < 3 else {0: "best", len(mine) // 2: "median"}
    if len(mine) > 1:
        places[len(mine) - 1] = "worst"
    picked = [(mine[place], what) for place, what in places.items() if mine]
    lines = max(1, len(picked))
    figure = Figure(figsize=(11, 0.8 + 1.8 * lines), layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False, width_ratios=(2.6, 1))
    for (left, right), (row, what) in zip(axes, picked, strict=False):
        sample = next(s for s in samples if s.segment.segment_id == row.recording)
        start, count = round(row.start_s * sample.fps), round(row.duration_s * sample.fps)
        truth = sample.truth[start : start + count]
        wave = part_of(sample.waves[primary], start, start + count)
        pair = [protocol.shaped(w, protocol.filtered(w, sample.fps, p), sample.fps, p) for w in (truth, wave)]
        length = len(pair[1])
        best = alignment.align(pair[1], pair[0][:length], sample.fps)
        time = row.start_s + np.arange(length) / sample.fps
        left.plot(time, _unit(pair[0][:length]) + 4, color=TRUTH, linewidth=1, label="contact pulse wave")
        # Turned and moved as it agrees best: neither its sign nor its phase was learned.
        left.plot(
            time - best.lag_s,
            best.sign * _unit(pair[1]),
            color=COLOURS.get(primary),
            linewidth=1.2,
            label=f"{NAMES.get(primary, primary)}, turned and moved",
        )
        left.set_title(
            f"{what}: {row.recording}, {row.predicted_bpm:.1f} bpm, true {row.true_bpm:.1f}; wave r "
            f"{row.wave_r:.2f}",
            fontsize=9,
        )
        left.set(yticks=[], xlim=(time[0], min(time[-1], time[0] + 20)))
        for w, colour, style in ((pair[0], TRUTH, "--"), (pair[1], COLOURS.get(primary), "-")):
            _draw_spectrum(right, w, sample.fps, colour, style)
        right.set(yticks=[], xlim=(30, 230))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    axes[0, 1].set_title("spectra, each to its highest", fontsize=9)
    axes[-1, 0].set_xlabel("s")
    axes[-1, 1].set_xlabel("bpm")
    return figure


def _draw_spectrum(axis: Axes, wave: np.ndarray, fps: float, colour: str | None, style: str) -> None:
    hz, power = hann_periodogram(wave - wave.mean(), fps)
    bpm = 60 * hz
    shown = (bpm >= 30) & (bpm <= 230)
    axis.plot(bpm[shown], power[shown] / power[shown].max(), color=colour, linestyle=style, linewidth=1)


def _unit(wave: np.ndarray) -> np.ndarray:
    wave = wave - wave.mean()
    return wave / (wave.std() + 1e-12)


def draw_similarities(
    network: RppgModel, params: Any, dataset: PreparedDataset, samples: Sequence[Sample], frames: int
) -> Figure:
    """Draw the self-similarity maps and waves of one test clip, a scale to a column.

    Args:
      network: Network whose settings and statistics are used.
      params: Parameters of the whole network, similarity blocks included.
      dataset: Dataset that the clip is in.
      samples: Waves of the tested segments; the longest one is shown.
      frames: Number of difference frames of the clip, at the most.
    """
    settings = network.network
    segment = max((sample.segment for sample in samples), key=lambda s: s.n_frames)
    n_frames = min(frames, (segment.n_frames - 1) // 2 * 2)
    clip = dataset.clip(segment, 0, n_frames + 1)
    video = views.whole_view(clip[None], settings.input_size, settings.input_transform)
    whole = Network(settings)
    _, features = jax.jit(lambda p, b, v: whole.apply({"params": p, "batch_stats": b}, v, train=False))(
        params, network.batch_stats, video
    )
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(2, len(features), squeeze=False, height_ratios=(3, 1.2))
    for i, (a, relative) in enumerate(zip(features, settings.relative_rates, strict=True)):
        fps = network.fps * relative
        ssm = self_similarity.similarity_matrix(a)
        ssw = np.asarray(self_similarity.similarity_wave(ssm))[0]
        length = len(ssw) / fps
        picture = axes[0, i].imshow(
            np.asarray(ssm)[0], extent=(0, length, length, 0), cmap="cividis", interpolation="none"
        )
        axes[0, i].set(title=f"scale {i + 1}, {fps:g} Hz", xlabel="s")
        figure.colorbar(picture, ax=axes[0, i], shrink=0.7)
        half = len(ssw) // 2
        axes[1, i].plot(np.arange(half) / fps, ssw[:half], color=COLOURS["target"], linewidth=1)
        axes[1, i].set(xlabel="lag, s")
    axes[0, 0].set_ylabel("s")
    axes[1, 0].set_ylabel("mean similarity")
    return figure


def draw_training(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the weighted loss terms and the health of a training over its steps.

    Example:
      >>> figure = draw_training([{"step": 5, "terms/snr": 0.5}, {"step": 10, "terms/snr": 0.4}])
      >>> [axis.get_title() for axis in figure.axes]
      ['weighted loss terms', 'health']
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    losses, healths = figure.subplots(1, 2)
    steps = [row["step"] for row in metrics]
    styles = ("-", "--", "-.", ":")
    for axis, prefix, title in ((losses, "terms/", "weighted loss terms"), (healths, "health/", "health")):
        names = [name for name in (metrics[0] if metrics else ()) if name.startswith(prefix)]
        for i, name in enumerate(names):
            values = [np.nan if row.get(name) is None else row[name] for row in metrics]
            look = {"linestyle": styles[i % 4], "color": CYCLE[i % len(CYCLE)], "linewidth": 1.2}
            axis.plot(steps, values, label=name.removeprefix(prefix), **look)
        axis.set(title=title, xlabel="step")
        if names:
            axis.legend(fontsize=7)
    healths.set_ylim(-0.05, 1.05)
    return figure


def draw_faces(dataset: PreparedDataset, samples: Sequence[Sample]) -> Figure:
    """Draw the first face crop of every tested segment."""
    columns = 6
    lines = -(-len(samples) // columns)
    figure = Figure(figsize=(11, 2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, sample in zip(axes, samples, strict=False):
        axis.imshow(dataset.clip(sample.segment, 0, 1)[0])
        axis.set_title(sample.segment.segment_id, fontsize=8)
    return figure


def draw_differences(table: Mapping[str, Score], title: str) -> Figure:
    """Draw paired differences with their intervals, a line each; what crosses 0 is not told apart."""
    figure = Figure(figsize=(9, 0.9 + 0.42 * len(table)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color="#888", linewidth=1)
    for i, s in enumerate(table.values()):
        axis.plot([s.low, s.high], [i, i], color=CYCLE[0], linewidth=2)
        axis.scatter(s.value, i, color=CYCLE[0], s=30, zorder=3)
        axis.text(s.value, i - 0.18, fixed(s.value, sign=True), ha="center", fontsize=7)
    axis.set_yticks(range(len(table)), list(table))
    axis.set(
        title=title,
        xlabel="difference of |error|, bpm: left of 0 the one named first has less",
        ylim=(len(table) - 0.4, -0.6),
    )
    return figure


def _panels(count: int, height: float, *, sharey: bool = True) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(11 if count > 2 else 4 * count, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharex=True, sharey=sharey)[0]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if np.isfinite(value)]
    low, high = (min(known), max(known)) if known else (40.0, 180.0)
    return low - 5, high + 5


def draw_seeds(summary: Mapping[str, Any]) -> Figure:
    """Draw the MAE of every seed of a study, part by part, method by method."""
    parts = summary["parts"]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axis = figure.subplots()
    methods = list(dict.fromkeys(name for part in parts.values() for name in part["methods"]))
    width = 0.8 / len(methods)
    for i, name in enumerate(methods):
        for j, part in enumerate(parts.values()):
            values = [v for v in part["methods"].get(name, {"by_seed": []})["by_seed"] if v is not None]
            at = j + (i - (len(methods) - 1) / 2) * width
            jitter = at + width * np.linspace(-0.2, 0.2, len(values))
            axis.scatter(jitter, values, s=30, alpha=0.8, linewidth=1, **style_of(name))
        axis.scatter([], [], label=NAMES.get(name, name), **style_of(name))
    axis.set_xticks(range(len(parts)), list(parts))
    axis.set(yscale="log", ylabel="MAE of a seed, bpm", xlim=(-0.5, len(parts) - 0.5))
    figure.legend(loc="outside upper left", ncols=len(methods), fontsize=8, frameon=False)
    return figure
