"""From a prepared dataset to a table of windows: read everybody by every method, score them by a protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.datasets.format import Segment
from sspd_jax.errors import UserError
from sspd_jax.evaluation import alignment, protocol, summary, table
from sspd_jax.evaluation.protocol import Protocol
from sspd_jax.evaluation.table import Row
from sspd_jax.heart_rate import classical
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import cell_colors, model, windows
from sspd_jax.inference.cell_colors import FaceCells

CLASSICAL = ("green", "chrom", "pos")
"""The methods that reports show unless others are named."""

LEAST_BETWEEN_S = 1.0  # windows whose confidence is weighed: it takes as long as all the rest


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The waves of one segment: what scores and pictures are made of.

    Attributes:
      segment: The segment that was read.
      fps: Sampling rate of all waves, Hz.
      truth: Contact pulse wave, float32 [t].
      waves: Method → its wave.
      cells: What `FaceCells` measured of the face, for the confidence, float32 [t, width].
    """

    segment: Segment
    fps: float
    truth: np.ndarray
    waves: Mapping[str, Wave]
    cells: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What one protocol says.

    Attributes:
      protocol: Protocol by which it was scored.
      rows: Every window of every method.
      result: The scores, see `summary.summarise`.
    """

    protocol: Protocol
    rows: Sequence[Row]
    result: Mapping[str, Any]


def read_segments(
    dataset: PreparedDataset,
    people: Sequence[str],
    networks: Mapping[str, model.RppgModel],
    methods: Sequence[str] = CLASSICAL,
) -> Iterator[Sample]:
    """Read every segment of some people by every method.

    Args:
      dataset: The prepared dataset.
      people: Ids of the people whose segments with a contact pulse wave are read.
      networks: Name → network.
      methods: Classical methods, names in `classical.METHODS`.

    Yields:
      The waves of a segment. Memory is that of a few windows of video and of the waves.
    """
    fps = dataset.fps
    # The confidence is that of the networks, which see the same of a video, or of a method if there are none.
    change = next((network.network.input_transform for network in networks.values()), "difference")
    for segment in dataset.segments:
        truth = dataset.ppg(segment) if segment.person_id in people else None
        if truth is None:
            continue
        waves = {name: network.infer(dataset.frames(segment), fps, 0.0) for name, network in networks.items()}
        trace, cells, face = [], [], FaceCells(change)
        for frame in dataset.frames(segment):
            trace.append(frame.mean(axis=(0, 1), dtype=np.float64))
            cells.append(face.measure(frame))
        trace = np.array(trace)
        for name in methods:
            try:
                waves[name] = Wave(classical.read_trace(name, trace, fps), fps)
            except ValueError:  # too short a segment for this method's windows
                waves[name] = Wave(np.full(len(trace), np.nan), fps)
        yield Sample(segment, fps, truth, waves, np.array(cells))


def score_segment(sample: Sample, p: Protocol, primary: str | None = None) -> list[Row]:
    """Compare every method's wave with the truth's, window by window and over the whole segment.

    Args:
      sample: The waves of a segment.
      p: The protocol.
      primary: The method whose windows get a confidence, at most one window a second; None for none.

    Returns:
      A row for each window and method, and one for the whole segment; windows without truth are left out.
    """
    fps, segment = sample.fps, sample.segment
    facts = table.flatten_metadata(segment.meta)
    true_beats = _beats(sample.truth, fps, p)[1]
    beats = {name: _beats(wave.values, fps, p) for name, wave in sample.waves.items()}
    rows, weighed_at = [], -np.inf
    for span, start, count in _spans(len(sample.truth), fps, p):
        true_bpm, true_shape = _true_rate(sample.truth[start : start + count], fps, p)
        if not np.isfinite(true_bpm):
            continue
        start_s, end_s = start / fps, (start + count) / fps
        inside = true_beats[(true_beats >= start_s) & (true_beats <= end_s)]
        for name, wave in sample.waves.items():
            part = wave.values[start : start + count]
            numbers = _score_wave(part, count, true_bpm, true_shape, fps, p)
            if "sign" in numbers:
                moved = beats[name][numbers.pop("sign")] - numbers.pop("lag_s")
                near = moved[(moved >= start_s - 1) & (moved <= end_s + 1)]
                intervals = alignment.interval_error(near, inside)
                numbers |= {"ibi_error_ms": intervals.error_ms, "beats_found": intervals.found}
            weighs = span == "window" or not p.window_s  # read in windows, a video is not weighed again
            if name == primary and weighs and start_s >= weighed_at + LEAST_BETWEEN_S:
                numbers["confidence"] = _confidence(part, sample, start, count, numbers["predicted_bpm"])
                weighed_at = start_s
            place = {"span": span, "start_s": start_s, "duration_s": count / fps, "true_bpm": true_bpm}
            ids = {"recording": segment.segment_id, "person": segment.person_id, "method": name}
            rows.append(Row(**ids, **place, **numbers, facts=facts))
    return rows


def _spans(total: int, fps: float, p: Protocol) -> list[tuple[str, int, int]]:
    """Lay the protocol's windows over a segment, then the whole of it: (span, first sample, samples)."""
    length, stride = round(p.window_s * fps), max(1, round(p.stride_s * fps))
    starts = range(0, total - length + 1, stride) if length else ()
    whole = [("video", 0, total)] if total >= length else []
    return [*(("window", start, length) for start in starts), *whole]


def _true_rate(truth: np.ndarray, fps: float, p: Protocol) -> tuple[float, np.ndarray]:
    """Return the rate of a window's contact wave in bpm, NaN where it has none, and its shape."""
    clean = protocol.filtered(truth, fps, p)
    bpm = float("nan") if clean is None else protocol.read_rate(clean, fps, p)
    return bpm, protocol.shaped(truth, clean, fps, p) if np.isfinite(bpm) else truth


def _beats(wave: np.ndarray, fps: float, p: Protocol) -> dict[int, np.ndarray]:
    """Find the beats of a whole segment, either way up."""
    clean = protocol.filtered(wave, fps, p)
    if clean is None:
        return {1: np.zeros(0), -1: np.zeros(0)}
    return alignment.both_ways(protocol.shaped(wave, clean, fps, p), fps)


def _score_wave(
    part: np.ndarray, count: int, true_bpm: float, true_shape: np.ndarray, fps: float, p: Protocol
) -> dict[str, Any]:
    """Score one method's wave in a window of `count` samples; 'sign' and 'lag_s' say how it lies best."""
    clean = protocol.filtered(part, fps, p) if windows.fills(part, count) else None
    if clean is None:
        return {"predicted_bpm": float("nan"), "snr_db": float("nan"), "wave_r": float("nan")}
    shape = protocol.shaped(part, clean, fps, p)
    true_shape = true_shape[: len(shape)]
    best = alignment.align(shape, true_shape, fps)
    return {
        "predicted_bpm": protocol.read_rate(clean, fps, p),
        "snr_db": protocol.read_snr(clean, fps, true_bpm, p),
        "macc": alignment.macc(shape, true_shape),
        "wave_r": best.r,
        **({"sign": best.sign, "lag_s": best.lag_s} if np.isfinite(best.r) else {}),
    }


def _confidence(part: np.ndarray, sample: Sample, start: int, count: int, bpm: float) -> float:
    """Weigh a window as `predict` does, but for what lies behind the face: a crop does not show it."""
    if not np.isfinite(bpm):
        return 0.0  # no rate, no reading
    part = np.asarray(part, np.float64)
    traces = (None,) if sample.cells is None else cell_colors.cell_traces(sample.cells[start : start + count])
    return windows.confidence_of(part, sample.fps, bpm, traces)[0]


def score(
    samples: Sequence[Sample], primary: str, p: Protocol, *, with_confidence: bool = True
) -> Evaluation:
    """Score what was read by a protocol.

    Args:
      samples: The waves of every segment.
      primary: The method that was fixed before testing.
      p: The protocol.
      with_confidence: Whether to weigh the primary method's windows too: it takes as long as all else.

    Raises:
      UserError: There is no window with a truth.
    """
    weighed = primary if with_confidence else None
    rows = [row for sample in samples for row in score_segment(sample, p, weighed)]
    if not rows:
        longest = max((len(s.truth) / s.fps for s in samples), default=0.0)
        raise UserError(
            f"there is nothing to test on by the protocol {p.name}: no window of {p.window_s:g} s with a "
            f"contact pulse wave (the longest video of these people has {longest:.0f} s); name people who "
            "have one, or set --window"
        )
    return Evaluation(p, rows, summary.summarise(rows, p, primary))
