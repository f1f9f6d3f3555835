"""Test a trained run on people it never saw, beside the untrained network and the classical methods.

python -m sspd_jax.evaluate --workdir=DIR
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from sspd_jax import command, reader, storage
from sspd_jax import config as experiments
from sspd_jax.command import UserError
from sspd_jax.datasets import prepared
from sspd_jax.heart_rate import classical, rate, scores
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.method import model

REPORT = "report"
UNTRAINED = "untrained"
CLASSICAL = ("green", "chrom", "pos")  # the methods that reports show


@dataclasses.dataclass(frozen=True)
class Row:
    """What one method said of one window (or of a whole video), beside the truth.

    Attributes:
      recording: segment of a recording.
      person: who is seen.
      method: 'online', 'target', 'untrained', 'green', 'chrom' or 'pos'.
      span: 'window' or 'video'.
      start_s: of the window in the segment, s.
      duration_s: of the window, s.
      true_bpm: from the contact pulse wave in the same window, by the same read-out.
      predicted_bpm: NaN where the method gave none.
      snr_db: of the method's wave at the true rate.
    """

    recording: str
    person: str
    method: str
    span: str
    start_s: float
    duration_s: float
    true_bpm: float
    predicted_bpm: float
    snr_db: float


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The waves of one segment, kept for the pictures.

    Attributes:
      segment: what was read.
      fps: of all waves, Hz.
      truth: contact pulse wave. # float32 [t]
      waves: method → wave.
    """

    segment: prepared.Segment
    fps: float
    truth: np.ndarray
    waves: Mapping[str, Wave]


def evaluate_run(
    config: ml_collections.ConfigDict,
    dataset: prepared.PreparedDataset,
    workdir: epath.PathLike,
    *,
    faces: bool = True,
) -> dict[str, Any]:
    """Test a trained run and write its report.

    Args:
      config: of the run.
      dataset: prepared; only `config.data.test_people` are looked at.
      workdir: with the run's exported networks.
      faces: whether the report may show face pictures.

    Returns:
      The scores, as in `report/scores.json`.

    Raises:
      UserError: the run is not trained, or there is nobody to test on.
    """
    from sspd_jax import report  # matplotlib takes a second to import

    workdir = epath.Path(workdir)
    networks = {name: reader.load(workdir / "network" / name) for name in ("online", "target")}
    networks[UNTRAINED] = _untrained(config)
    rows, samples = [], []
    for sample in read_segments(dataset, tuple(config.data.test_people), networks):
        samples.append(sample)
        rows += score_segment(sample, config.evaluation)
    if not rows:
        raise UserError(
            f"{workdir}: no window of {config.evaluation.window_s:g} s with a contact pulse wave to test on; "
            "name people who have one in data.test_people, or shorten evaluation.window_s"
        )
    result = {
        "protocol": protocol(config),
        "reader": config.evaluation.reader,
        "people": sorted({row.person for row in rows}),
        "scores": summarise(rows),
    }
    page = report.render(config, workdir, dataset, result, rows, samples, faces=faces)
    folder = workdir / REPORT
    with storage.storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    storage.write_text(folder / "windows.csv", _as_csv(rows))
    storage.write_text(folder / "scores.json", json.dumps(result, indent=2) + "\n")
    storage.write_text(folder / "index.html", page)
    return result


def _untrained(config: ml_collections.ConfigDict) -> reader.Reader:
    """Make the network that training started from: what is seen without learning."""
    settings = experiments.network_settings(config)
    params, batch_stats = model.init(settings, jax.random.key(config.seed))
    return reader.Reader(settings, params, batch_stats, config.fps, config.crop_size, UNTRAINED)


def read_segments(
    dataset: prepared.PreparedDataset,
    people: tuple[str, ...],
    networks: Mapping[str, reader.Reader],
) -> Iterator[Sample]:
    """Read every segment of some people by every method.

    Args:
      dataset: prepared.
      people: whose segments are read, those with a contact pulse wave.
      networks: name → reader.

    Yields:
      The waves of a segment. Memory is that of a few windows of video and of the waves.
    """
    fps = dataset.fps
    for segment in dataset.segments:
        truth = dataset.ppg(segment)
        if segment.person_id not in people or truth is None:
            continue
        waves = {name: network.read(dataset.frames(segment), fps, 0.0) for name, network in networks.items()}
        trace = np.array([frame.mean(axis=(0, 1), dtype=np.float64) for frame in dataset.frames(segment)])
        for name in CLASSICAL:
            try:
                waves[name] = Wave(classical.read_trace(name, trace, fps), fps)
            except ValueError:  # too short a segment for this method's windows
                waves[name] = Wave(np.full(len(trace), np.nan), fps)
        yield Sample(segment, fps, truth, waves)


def score_segment(sample: Sample, settings: Mapping[str, Any]) -> list[Row]:
    """Compare every method's rate with the truth's, window by window and over the whole segment.

    Args:
      sample: the waves of a segment.
      settings: `window_s`, `stride_s` and `read_out`.

    Returns:
      A row for each window and method, and one for the whole segment; windows without truth are left out.
    """
    fps = sample.fps
    length, stride = round(settings["window_s"] * fps), max(1, round(settings["stride_s"] * fps))
    total = len(sample.truth)
    spans = [("window", start, length) for start in range(0, total - length + 1, stride)]
    if total >= length:
        spans.append(("video", 0, total))
    rows = []
    for span, start, count in spans:
        true_bpm = _rate(sample.truth[start : start + count], fps, settings["read_out"])
        if not np.isfinite(true_bpm):
            continue
        for name, wave in sample.waves.items():
            part = wave.values[start : start + count]
            # CHROM's wave can end early: a window that lacks more than a tenth has no rate.
            whole = len(part) >= 0.9 * count
            predicted = _rate(part, fps, settings["read_out"]) if whole else float("nan")
            snr = scores.snr_db(part, fps, true_bpm) if whole else float("nan")
            segment = sample.segment
            rows.append(
                Row(
                    segment.segment_id,
                    segment.person_id,
                    name,
                    span,
                    start / fps,
                    count / fps,
                    true_bpm,
                    predicted,
                    snr,
                )
            )
    return rows


def _rate(wave: np.ndarray, fps: float, read_out: str) -> float:
    wave = np.asarray(wave, np.float64)
    if len(wave) < 30 or not np.isfinite(wave).all():
        return float("nan")
    return rate.READ_OUTS[read_out](wave, fps)


def summarise(rows: list[Row]) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    """Score every method: span → method → metric → [value, standard error], None for a missing number."""
    result: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for span in ("window", "video"):
        result[span] = {}
        for name in dict.fromkeys(row.method for row in rows):
            chosen = [row for row in rows if row.method == name and row.span == span]
            if not chosen:
                continue
            table = scores.score_rates(
                np.array([row.predicted_bpm for row in chosen]), np.array([row.true_bpm for row in chosen])
            )
            snr = np.array([row.snr_db for row in chosen if np.isfinite(row.snr_db)])
            if len(snr):
                table["SNR"] = scores.Score(float(snr.mean()), float(snr.std() / np.sqrt(len(snr))))
            result[span][name] = {
                metric: [v if np.isfinite(v) else None for v in score] for metric, score in table.items()
            }
    return result


def protocol(config: ml_collections.ConfigDict) -> str:
    """Say in a sentence how the scores were made."""
    e = config.evaluation
    how = {
        "spectrum": "interpolated peak of the Hann-windowed spectrum in 0.6–3.6 Hz",
        "wavelet": "Butterworth 0.5–3 Hz, wavelet selection, mean beat-to-beat rate",
    }[e.read_out]
    return (
        f"people never seen in training; windows of {e.window_s:g} s every {e.stride_s:g} s; rate: {how}; "
        f"truth: the contact pulse wave in the same window by the same read-out; the reader, fixed before "
        f"testing, is the {e.reader} network; ± is one standard error"
    )


def _as_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([field.name for field in dataclasses.fields(Row)])
    writer.writerows(dataclasses.astuple(row) for row in rows)
    return text.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m sspd_jax.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True, metavar="DIR", help="of a trained run")
    parser.add_argument("--no_faces", action="store_true", help="leave face pictures out of the report")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)

    def work():
        from sspd_jax import train

        workdir = epath.Path(args.workdir)
        path = workdir / train.CONFIG
        if not path.exists():
            raise UserError(f"{workdir}: is no work directory of a run; name one that has a {train.CONFIG}")
        config = ml_collections.ConfigDict(json.loads(path.read_text()))
        dataset = prepared.open_prepared(config.data.data_dir, fps=config.fps, crop_size=config.crop_size)
        config, dataset = train.choose_people(config, dataset)
        result = evaluate_run(config, dataset, workdir, faces=not args.no_faces)
        print(table(result))
        print(f"report: {workdir / REPORT / 'index.html'}")

    return command.run(work, debug=args.debug)


def table(result: Mapping[str, Any]) -> str:
    """Write the scores of windows as a table in plain text."""
    lines = [f"{'method':<14}{'MAE bpm':>16}{'RMSE bpm':>16}{'r':>14}{'SNR dB':>16}"]
    for name, metrics in result["scores"]["window"].items():
        label = f"{name} *" if name == result["reader"] else name
        cells = [cell(metrics.get(metric)) for metric in ("MAE", "RMSE", "r", "SNR")]
        lines.append(f"{label:<14}{cells[0]:>16}{cells[1]:>16}{cells[2]:>14}{cells[3]:>16}")
    return "\n".join([*lines, f"* {result['protocol']}"])


def cell(score: list[float | None] | None) -> str:
    """Write a score and its standard error."""
    if score is None or score[0] is None:
        return "–"
    return f"{score[0]:.2f} ± {score[1]:.2f}" if score[1] is not None else f"{score[0]:.2f}"


if __name__ == "__main__":
    sys.exit(main())
