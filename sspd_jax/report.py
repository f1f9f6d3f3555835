"""The report of a run: one self-contained HTML page with the numbers and the pictures people look at."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import matplotlib
import ml_collections
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from sspd_jax import checkpoint, run_log
from sspd_jax import config as experiments
from sspd_jax.datasets import prepared
from sspd_jax.method import model, self_similarity, views

if TYPE_CHECKING:
    from sspd_jax.evaluate import Row, Sample

matplotlib.use("Agg")

# Okabe and Ito's palette: told apart by the colour-blind, and in grey print by their lightness.
COLOURS = {
    "online": "#0072B2",
    "target": "#56B4E9",
    "untrained": "#999999",
    "green": "#009E73",
    "chrom": "#E69F00",
    "pos": "#D55E00",
    "truth": "#000000",
}
NAMES = {
    "online": "SSPD, online network",
    "target": "SSPD, target network",
    "untrained": "untrained network",
    "green": "GREEN",
    "chrom": "CHROM",
    "pos": "POS",
}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
td:first-child, th:first-child {{ text-align: left; }}
tr.reader {{ font-weight: 600; background: #f2f7fb; }}
img {{ max-width: 100%; }} .note {{ color: #555; }}
</style></head><body>
{body}
<p class="note">Not a medical device. These numbers hold for these recordings and this protocol.</p>
</body></html>
"""


def render(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    dataset: prepared.PreparedDataset,
    result: Mapping[str, Any],
    rows: Sequence[Row],
    samples: Sequence[Sample],
    *,
    faces: bool,
) -> str:
    """Write the report's page.

    Args:
      config: of the run.
      workdir: of the run, with its exported networks and its log.
      dataset: what was tested on.
      result: scores, see `evaluate.evaluate_run`.
      rows: every window's row.
      samples: the waves of every tested segment.
      faces: whether to show a face crop of each tested person.

    Returns:
      HTML, pictures embedded.
    """
    chosen = result["reader"]
    parts = [
        f"<h1>{html.escape(workdir.name)}: heart rates of {len(result['people'])} people "
        "the network never saw</h1>",
        f"<p class='note'>Protocol: {html.escape(result['protocol'])}.</p>",
        "<h2>Scores, by window</h2>",
        _score_table(result, "window"),
        "<h2>Scores, by whole video</h2>",
        _score_table(result, "video"),
        "<h2>Predicted against true heart rate</h2>",
        _image(_draw_rates(rows, chosen), "predicted against true heart rate of every window"),
        "<h2>Learned waves</h2>",
        "<p>Windows with the smallest, the median and the largest error. The wave's sign and phase are not "
        "learned; the contact pulse wave is drawn above it.</p>",
        _image(_draw_waves(rows, samples, chosen), "waves of the best, the median and the worst window"),
        "<h2>Similarity maps</h2>",
        "<p>One test clip: how alike its features are at every two moments, at each scale, and the means of "
        "the diagonals. A pulse shows as stripes, one beat apart.</p>",
        _image(_draw_similarities(config, workdir, dataset, samples), "similarity maps and waves"),
        "<h2>Training</h2>",
        _image(_draw_training(run_log.read_metrics(workdir)), "losses and health over the steps"),
    ]
    if faces:
        parts += [
            "<h2>Who was tested on</h2>",
            _image(_draw_faces(dataset, samples), "the first face crop of every tested segment"),
        ]
    return _PAGE.format(title=html.escape(workdir.name), body="\n".join(parts))


def _score_table(result: Mapping[str, Any], span: str) -> str:
    from sspd_jax.evaluate import cell

    head = "<tr><th>method</th><th>MAE, bpm</th><th>RMSE, bpm</th><th>r</th><th>SNR, dB</th><th>n</th></tr>"
    lines = []
    for name, metrics in result["scores"][span].items():
        cells = "".join(f"<td>{cell(metrics.get(m))}</td>" for m in ("MAE", "RMSE", "r", "SNR"))
        count = f"{metrics['rows'][0]:.0f}"
        if metrics["missing"][0]:
            count += f" (+{metrics['missing'][0]:.0f} without a rate)"
        mark = " class='reader'" if name == result["reader"] else ""
        lines.append(f"<tr{mark}><td>{NAMES[name]}</td>{cells}<td>{count}</td></tr>")
    return f"<table>{head}{''.join(lines)}</table>"


def _image(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _draw_rates(rows: Sequence[Row], chosen: str) -> Figure:
    shown = (chosen, "untrained", "green", "pos")
    figure = Figure(figsize=(11, 3.2))
    axes = figure.subplots(1, len(shown), sharex=True, sharey=True)
    windows = [row for row in rows if row.span == "window"]
    for axis, name in zip(axes, shown, strict=True):
        mine = [row for row in windows if row.method == name]
        axis.plot([40, 180], [40, 180], color="#bbb", linewidth=1)
        axis.scatter(
            [row.true_bpm for row in mine], [row.predicted_bpm for row in mine], s=16, color=COLOURS[name]
        )
        axis.set(title=NAMES[name], xlabel="true, bpm", aspect="equal")
    axes[0].set_ylabel("predicted, bpm")
    return figure


def _draw_waves(rows: Sequence[Row], samples: Sequence[Sample], chosen: str) -> Figure:
    mine = [
        row
        for row in rows
        if row.method == chosen and row.span == "window" and np.isfinite(row.predicted_bpm)
    ]
    mine.sort(key=lambda row: abs(row.predicted_bpm - row.true_bpm))
    picked = [mine[0], mine[len(mine) // 2], mine[-1]] if mine else []
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    axes = figure.subplots(3, 1, squeeze=False)[:, 0]
    for axis, row, what in zip(axes, picked, ("best", "median", "worst"), strict=False):
        sample = next(s for s in samples if s.segment.segment_id == row.recording)
        start, count = round(row.start_s * sample.fps), round(row.duration_s * sample.fps)
        wave = sample.waves[chosen].values[start : start + count]
        truth = sample.truth[start : start + count]
        time = row.start_s + np.arange(count) / sample.fps
        axis.plot(time, _unit(truth) + 4, color=COLOURS["truth"], linewidth=1, label="contact pulse wave")
        axis.plot(time[: len(wave)], _unit(wave), color=COLOURS[chosen], linewidth=1.2, label=NAMES[chosen])
        axis.set(
            yticks=[],
            title=f"{what}: {row.recording}, {row.predicted_bpm:.1f} bpm, true {row.true_bpm:.1f} bpm",
        )
    axes[0].legend(loc="upper right", fontsize=8)
    axes[-1].set_xlabel("s")
    return figure


def _unit(wave: np.ndarray) -> np.ndarray:
    wave = wave - wave.mean()
    return wave / (wave.std() + 1e-12)


def _draw_similarities(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    dataset: prepared.PreparedDataset,
    samples: Sequence[Sample],
) -> Figure:
    settings = experiments.network_settings(config)
    _, params, batch_stats = checkpoint.load_network(workdir / "network" / "online")
    segment = max((sample.segment for sample in samples), key=lambda s: s.n_frames)
    n_frames = min(config.clip_frames, (segment.n_frames - 1) // 2 * 2)
    video = views.whole_view(dataset.clip(segment, 0, n_frames + 1)[None], settings.input_size)
    network = model.Network(settings)
    _, features = jax.jit(lambda p, b, v: network.apply({"params": p, "batch_stats": b}, v, train=False))(
        params, batch_stats, video
    )
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(2, len(features), squeeze=False, height_ratios=(3, 1.2))
    for i, (a, relative) in enumerate(zip(features, settings.relative_rates, strict=True)):
        fps = config.fps * relative
        ssm = self_similarity.similarity_matrix(a)
        ssw = np.asarray(self_similarity.similarity_wave(ssm))[0]
        length = len(ssw) / fps
        axes[0, i].imshow(
            np.asarray(ssm)[0], extent=(0, length, length, 0), cmap="cividis", interpolation="none"
        )
        axes[0, i].set(title=f"scale {i + 1}, {fps:g} Hz", xlabel="s")
        half = len(ssw) // 2
        axes[1, i].plot(np.arange(half) / fps, ssw[:half], color=COLOURS["online"], linewidth=1)
        axes[1, i].set(xlabel="lag, s")
    axes[0, 0].set_ylabel("s")
    axes[1, 0].set_ylabel("mean similarity")
    return figure


def _draw_training(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    losses, healths = figure.subplots(1, 2)
    steps = [row["step"] for row in metrics]
    styles = ("-", "--", "-.", ":")
    for axis, prefix, title in ((losses, "terms/", "weighted loss terms"), (healths, "health/", "health")):
        names = [name for name in (metrics[0] if metrics else ()) if name.startswith(prefix)]
        for i, name in enumerate(names):
            values = [np.nan if row.get(name) is None else row[name] for row in metrics]
            axis.plot(steps, values, label=name.removeprefix(prefix), linestyle=styles[i % 4], linewidth=1.2)
        axis.set(title=title, xlabel="step")
        if names:
            axis.legend(fontsize=7)
    healths.set_ylim(-0.05, 1.05)
    return figure


def _draw_faces(dataset: prepared.PreparedDataset, samples: Sequence[Sample]) -> Figure:
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
