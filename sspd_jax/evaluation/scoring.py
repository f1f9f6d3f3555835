"""From a prepared dataset to a table of windows: read everybody by every method, score them by a protocol."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sspd_jax.datasets import preparation
from sspd_jax.datasets.dataset import PreparedDataset
from sspd_jax.datasets.format import Segment
from sspd_jax.errors import UserError
from sspd_jax.evaluation import alignment, protocol, summary, table
from sspd_jax.evaluation.protocol import Protocol
from sspd_jax.evaluation.skin import Judged, SkinReading, SkinSource
from sspd_jax.evaluation.table import Row
from sspd_jax.heart_rate import classical, confidence
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import cell_colors, model, windows
from sspd_jax.inference.cell_colors import FaceCells
from sspd_jax.inference.methods import AUTO
from sspd_jax.runtime import processes

CLASSICAL = ("green", "chrom", "pos")
DEFAULT = (AUTO, *CLASSICAL)
"""The methods that reports show unless others are named; a crop has no `AUTO`."""

LEAST_BETWEEN_S = 1.0  # windows whose confidence is weighed: it takes as long as all the rest
LEAST_S = 4.0  # of truth without a break: what is shorter holds too few beats to be scored


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The waves of one segment: what scores and pictures are made of.

    Attributes:
      segment: The segment that was read.
      fps: Sampling rate of all waves, Hz.
      truth: Contact pulse wave, NaN where there is none, float32 [t].
      waves: Method → its wave; where the truth has breaks, each stretch was read on its own, NaN between.
      cells: What `FaceCells` measured of the crop, for the confidence, float32 [t, width]; or None.
      skin: Where the skin is read from; None where the crop is.
    """

    segment: Segment
    fps: float
    truth: np.ndarray
    waves: Mapping[str, Wave]
    cells: np.ndarray | None = None
    skin: SkinSource | None = None


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Something of the data that is in no row of a table, and why.

    Attributes:
      recording: id of the recording, or of a segment of it.
      person: who is seen; '' where that is not known.
      why: the reason.
      start_s: where it begins in the segment, s; None for all of it.
      end_s: where it ends, s; None for all of it.
    """

    recording: str
    person: str
    why: str
    start_s: float | None = None
    end_s: float | None = None

    def __str__(self) -> str:
        if self.start_s is None:
            return f"{self.recording}: {self.why}"
        return f"{self.recording}: {self.start_s:.2f}–{self.end_s:.2f} s: {self.why}"


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What one protocol says.

    Attributes:
      protocol: Protocol by which it was scored.
      rows: Every window of every method.
      result: The scores, see `summary.summarise`; 'left_out' lists what is in no row, as `LeftOut`'s fields.
    """

    protocol: Protocol
    rows: Sequence[Row]
    result: Mapping[str, Any]


def read_segments(
    dataset: PreparedDataset,
    people: Sequence[str],
    networks: Mapping[str, model.RppgModel],
    methods: Sequence[str] = CLASSICAL,
    region: str = "crop",
) -> Iterator[Sample]:
    """Read every segment of some people by every method.

    Args:
      dataset: The prepared dataset.
      people: Ids of the people whose segments with a contact pulse wave are read.
      networks: Name → network.
      methods: Classical methods, names in `classical.METHODS`, and `AUTO` where the skin is read.
      region: What of the face is read, 'skin' (of a dataset that `has_skin`) or 'crop'.

    Yields:
      The waves of a segment. Memory is that of a few windows of video and of the waves. Where the contact
      wave begins late, ends early or has holes, every stretch of the crop is read as if the video had been
      cut there: what lies beyond changes nothing. The skin is read as `predict` does, all of it.

    Raises:
      UserError: The dataset is damaged.
    """
    processes.require_whole()
    fps = dataset.fps
    # The confidence is that of the networks, which see the same of a video, or of a method if there are none.
    change = next((network.network.input_transform for network in networks.values()), "difference")
    for segment in dataset.segments:
        truth = dataset.ppg(segment) if segment.person_id in people else None
        if truth is None:
            continue
        skin = SkinSource(dataset, segment, tuple(methods)) if region == "skin" else None
        stretches = scored_stretches(truth, fps)
        of_crop = () if skin else methods
        # Of a crop that no network asks for, nothing is read.
        parts = [
            (
                first,
                last,
                *_read_stretch(dataset, segment, (first, last), networks, of_crop, change, not skin),
            )
            for first, last in stretches
        ]
        waves, cells = dict.fromkeys([*networks, *methods], Wave(np.full(len(truth), np.nan), fps)), None
        if [part[:2] for part in parts] == [(0, len(truth))]:
            found, cells = parts[0][2:]
            waves |= found
        elif parts:
            found, cells = _join(parts, len(truth), fps)
            waves |= found
        if skin and parts:
            reading = skin.read()
            waves |= {name: reading.wave(name, len(truth)) for name in methods}
        yield Sample(segment, fps, truth, waves, cells, skin)


def scored_stretches(truth: np.ndarray, fps: float) -> list[tuple[int, int]]:
    """Return first frame and last + 1 of every unbroken stretch of truth that is long enough to be scored.

    Args:
      truth: contact pulse wave, NaN where there is none. # float [t]
      fps: Hz.
    """
    return [
        (first, last)
        for first, last in preparation.stretches(np.isfinite(truth))
        if last - first >= LEAST_S * fps
    ]


def _read_stretch(
    dataset: PreparedDataset,
    segment: Segment,
    span: tuple[int, int],
    networks: Mapping[str, model.RppgModel],
    methods: Sequence[str],
    change: str,
    with_cells: bool,
) -> tuple[dict[str, Wave], np.ndarray | None]:
    """Read frames first to last of a segment by every method: the waves, and the colours of the face."""
    fps = dataset.fps
    waves = {
        name: network.infer(itertools.islice(dataset.frames(segment), *span), fps, 0.0)
        for name, network in networks.items()
    }
    if not with_cells:
        return waves, None
    trace, cells, face = [], [], FaceCells(change)
    for frame in itertools.islice(dataset.frames(segment), *span):
        trace.append(frame.mean(axis=(0, 1), dtype=np.float64))
        cells.append(face.measure(frame))
    trace = np.array(trace)
    for name in methods:
        try:
            waves[name] = Wave(classical.read_trace(name, trace, fps), fps)
        except ValueError:  # too short a segment for this method's windows
            waves[name] = Wave(np.full(len(trace), np.nan), fps)
    return waves, np.array(cells)


def _join(
    parts: Sequence[tuple[int, int, Mapping[str, Wave], np.ndarray | None]], length: int, fps: float
) -> tuple[dict[str, Wave], np.ndarray | None]:
    """Lay stretches into the segment that they are from, NaN between them."""
    first_waves, first_cells = parts[0][2:]
    joined = {name: np.full(length, np.nan, wave.values.dtype) for name, wave in first_waves.items()}
    cells = None
    if first_cells is not None:
        cells = np.full((length, *first_cells.shape[1:]), np.nan, first_cells.dtype)
    for first, last, waves, seen in parts:
        if cells is not None:
            cells[first:last] = seen
        for name, wave in waves.items():
            values = wave.values[: last - first]
            joined[name][first : first + len(values)] = values
    return {name: Wave(values, fps) for name, values in joined.items()}, cells


def score_segment(sample: Sample, p: Protocol, primary: str | None = None) -> list[Row]:
    """Compare every method's wave with the truth's, window by window and over the whole segment.

    Args:
      sample: The waves of a segment.
      p: The protocol.
      primary: The method whose windows get a confidence, at most one window a second; None for none. Over
        the skin, those of every method do.

    Returns:
      A row for each window and method, and one for every stretch of truth as a whole: windows are laid from
      where the contact wave begins to where it ends, anew after each of its holes. What is in no row says
      `left_out_of`.
    """
    rows: list[Row] = []
    length = round(p.window_s * sample.fps)
    spans = [span for span in scored_stretches(sample.truth, sample.fps) if span[1] - span[0] >= length]
    reading = None
    if sample.skin and spans:
        learned = {name: wave for name, wave in sample.waves.items() if name not in sample.skin.methods}
        reading = sample.skin.read(learned)
    for first, last in spans:
        rows += _score_stretch(sample, first, last, p, primary, reading)
    return rows


def left_out_of(sample: Sample, p: Protocol, rows: Sequence[Row]) -> list[LeftOut]:
    """List what of a segment is in no row.

    Args:
      sample: the waves of the segment.
      p: the protocol.
      rows: what `score_segment` made of it.
    """
    fps, total = sample.fps, len(sample.truth)
    who = (sample.segment.segment_id, sample.segment.person_id)
    length, stride = round(p.window_s * fps), max(1, round(p.stride_s * fps))
    least = max(length, LEAST_S * fps)
    there = preparation.stretches(np.isfinite(sample.truth))
    found = []
    if total < least:
        return [LeftOut(*who, f"its {total / fps:.2f} s are shorter than {least / fps:g} s")]
    if not there:
        return [LeftOut(*who, NO_TRUTH)]
    found += [
        LeftOut(*who, NO_TRUTH, first / fps, last / fps)
        for first, last in preparation.stretches(~np.isfinite(sample.truth))
    ]
    scored = {(row.span, round(row.start_s * fps)) for row in rows}
    for first, last in there:
        if last - first < least:
            why = f"a contact pulse wave of less than {least / fps:g} s"
            found.append(LeftOut(*who, why, first / fps, last / fps))
            continue
        starts = range(first, last - length + 1, stride) if length else ()
        flat = np.zeros(total, bool)
        for start in starts:
            if ("window", start) not in scored:
                flat[start : start + length] = True
        if not length and ("video", first) not in scored:
            flat[first:last] = True
        found += [LeftOut(*who, FLAT_TRUTH, a / fps, b / fps) for a, b in preparation.stretches(flat)]
    return found


NO_TRUTH = "no contact pulse wave"
FLAT_TRUTH = "the contact pulse wave shows no rate"


def not_read(dataset: PreparedDataset, people: Sequence[str], asked_for: bool = True) -> list[LeftOut]:
    """List the recordings that `read_segments` passes over, and those that the dataset was made without.

    Args:
      dataset: prepared.
      people: who is tested.
      asked_for: whether they were named; else those who are not among them and have no wave count too.
    """
    left = [
        LeftOut(s.segment_id, s.person_id, NO_TRUTH)
        for s in dataset.segments
        if not s.has_ppg and (not asked_for or s.person_id in people)
    ]
    left += [LeftOut(p, p, "not in the dataset") for p in people if p not in dataset.people]
    return left + [LeftOut(name, "", f"not prepared: {why}") for name, why in dataset.left_out.items()]


def _score_stretch(
    sample: Sample, first: int, last: int, p: Protocol, primary: str | None, reading: SkinReading | None
) -> list[Row]:
    """Score what lies between two frames, all of which have a truth."""
    fps, segment = sample.fps, sample.segment
    length, stride = round(p.window_s * fps), max(1, round(p.stride_s * fps))
    spans = [("window", start, length) for start in range(first, last - length + 1, stride)] if length else []
    spans.append(("video", first, last - first))
    facts = table.flatten_metadata(segment.meta)
    true_beats = _beats(sample.truth[first:last], fps, p)[1] + first / fps
    beats = {
        name: {sign: at + first / fps for sign, at in _beats(part_of(wave, first, last), fps, p).items()}
        for name, wave in sample.waves.items()
    }
    rows, weighed_at = [], -np.inf
    for span, start, count in spans:
        true_bpm, true_shape = _true_rate(sample.truth[start : start + count], fps, p)
        if not np.isfinite(true_bpm):
            continue
        start_s, end_s = start / fps, (start + count) / fps
        weighs = span == "window" or not p.window_s  # read in windows, a video is not weighed again
        weighs = weighs and primary is not None and start_s >= weighed_at + LEAST_BETWEEN_S
        weighed_at = start_s if weighs else weighed_at
        inside = true_beats[(true_beats >= start_s) & (true_beats <= end_s)]
        for name, wave in sample.waves.items():
            part = part_of(wave, start, start + count)
            numbers = _score_wave(part, count, true_bpm, true_shape, fps, p)
            if "sign" in numbers:
                moved = beats[name][numbers.pop("sign")] - numbers.pop("lag_s")
                near = moved[(moved >= start_s - 1) & (moved <= end_s + 1)]
                intervals = alignment.interval_error(near, inside)
                numbers |= {"ibi_error_ms": intervals.error_ms, "beats_found": intervals.found}
            bpm = numbers["predicted_bpm"]
            judged = None
            if reading is not None and name in sample.skin.methods:
                judged = reading.estimate(name, start_s, count / fps, judged=weighs)
            elif reading is not None and weighs:
                judged = reading.judge(name, start_s, count / fps, bpm)
            elif name == primary and weighs:
                judged = Judged(bpm, *_confidence(part, sample, start, count, bpm))
            if judged is not None:
                bpm, sure, why = judged
                numbers |= {"predicted_bpm": bpm, "confidence": sure, "why": why}
            place = {"span": span, "start_s": start_s, "duration_s": count / fps, "true_bpm": true_bpm}
            ids = {"recording": segment.segment_id, "person": segment.person_id, "method": name}
            rows.append(Row(**ids, **place, **numbers, facts=facts))
    return rows


def part_of(wave: Wave, first: int, last: int) -> np.ndarray:
    """Cut a part out of a wave, without the NaN that it ends with where it was read to its end only."""
    part = wave.values[first:last]
    there = np.flatnonzero(np.isfinite(part))
    return part[: there[-1] + 1] if len(there) else part[:0]


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


def _confidence(part: np.ndarray, sample: Sample, start: int, count: int, bpm: float) -> tuple[float, str]:
    """Weigh a window as `predict` does a crop, but for what lies behind the face: a crop does not show it."""
    if not np.isfinite(bpm):
        return 0.0, windows.FLAT  # no rate, no reading
    part = np.asarray(part, np.float64)
    traces = (None,) if sample.cells is None else cell_colors.cell_traces(sample.cells[start : start + count])
    chance, why = windows.confidence_of(part, sample.fps, bpm, traces)
    return chance, "" if chance >= confidence.THRESHOLD else why


def score(
    samples: Sequence[Sample],
    primary: str,
    p: Protocol,
    *,
    with_confidence: bool = True,
    not_read: Sequence[LeftOut] = (),
    notes: Sequence[str] = (),
) -> Evaluation:
    """Score what was read by a protocol.

    Args:
      samples: The waves of every segment.
      primary: The method that was fixed before testing.
      p: The protocol.
      with_confidence: Whether to weigh the primary method's windows too: it takes as long as all else.
      not_read: What is left out beside that, see `not_read`.
      notes: What else is to be said, before the other warnings.

    Raises:
      UserError: There is no window with a truth.
    """
    weighed = primary if with_confidence else None
    rows, left_out = [], [*not_read]
    for sample in samples:
        found = score_segment(sample, p, weighed)
        rows += found
        left_out += left_out_of(sample, p, found)
    if not rows:
        raise nothing_to_test(p, [(len(s.truth), s.truth) for s in samples], samples[0].fps if samples else 1)
    result = summary.summarise(rows, p, primary)
    result["warnings"] = [*notes, *_fallbacks(samples), *_not_learned(samples), *result["warnings"]]
    result["left_out"] = [dataclasses.asdict(one) for one in left_out]
    absent = {one.person for one in left_out} - {row.person for row in rows} - {""}
    if absent:
        names = ", ".join(sorted(absent))
        result["warnings"].append(f"nobody of these is in the tables, see what is left out: {names}")
    return Evaluation(p, rows, result)


def _fallbacks(samples: Sequence[Sample]) -> list[str]:
    """Say of which recordings the skin was found without landmarks."""
    ids = _by_reason(samples, lambda source: source.dataset.skin_fallback(source.segment.recording_id))
    return [f"the skin was found without landmarks in {names}: {why}" for why, names in ids.items()]


def _not_learned(samples: Sequence[Sample]) -> list[str]:
    """Say in which recordings `AUTO` has no network though that of `predict` has one."""

    def why_not(source: SkinSource) -> str:
        if AUTO not in source.methods:
            return ""
        return source.dataset.why_not_learned(source.segment.recording_id)

    ids = _by_reason(samples, why_not)
    return [f"{AUTO} is read without the network of predict in {names}: {why}" for why, names in ids.items()]


def _by_reason(samples: Sequence[Sample], reason_of: Callable[[SkinSource], str]) -> dict[str, str]:
    """Return every reason that there is, '' apart, and the recordings that have it, as a list in words."""
    found: dict[str, dict[str, None]] = {}
    for source in (sample.skin for sample in samples):
        why = reason_of(source) if source else ""
        if why:
            found.setdefault(why, {})[source.segment.recording_id] = None
    return {why: ", ".join(ids) for why, ids in found.items()}


def nothing_to_test(p: Protocol, truths: Sequence[tuple[int, np.ndarray | None]], fps: float) -> UserError:
    """Say that a protocol finds nothing to score.

    Args:
      p: the protocol.
      truths: length of every segment, frames, and its contact pulse wave.
      fps: Hz.
    """
    least_s = max(p.window_s, LEAST_S)
    video_s = max((length / fps for length, _ in truths), default=0.0)
    spans = [b - a for _, t in truths if t is not None for a, b in preparation.stretches(np.isfinite(t))]
    truth_s = max(spans, default=0) / fps
    what = "unbroken video" if not p.window_s else f"window of {p.window_s:g} s"
    return UserError(
        f"there is nothing to test on by the protocol {p.name}: no {what} with a contact pulse wave of "
        f"{least_s:g} s or more that shows a rate (the longest video of these people has {video_s:.1f} s, "
        f"the longest contact pulse wave {truth_s:.1f} s); name people who have one, or set --window "
        "(config.evaluation.window_s)"
    )
