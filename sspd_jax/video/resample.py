"""Put frames and waves on a uniform clock by their timestamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np

MAX_GAP_S = 0.5  # between two frames of a face that is read; a longer one is not bridged
JITTER = 0.05  # of a period: a frame this near to a tick is on it (rounded timestamps are)
DENSER = 0.9  # frames nearer to each other than this share of a period are averaged


def uniform(
    frames: Iterable[tuple[float, np.ndarray]], fps: float, *, max_gap_s: float
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Put a stream of frames on a uniform clock, in bounded memory.

    Every unbroken segment has its own clock, which starts at its first frame. A tick gets

    - the frame itself, untouched, where one lies within 5 % of a period of the tick: a constant rate
      equal to `fps` passes through bit by bit, timestamps rounded to the container's units included;
    - where the frames are denser than the clock, their average, weighted by a hat of ± one period around
      the tick (narrower at a segment's ends): plain picking would fold flicker and noise into the pulse;
    - else the linear interpolation between the frames before and after it.

    A gap up to `max_gap_s` is interpolated; a longer one is never filled, it ends the segment.

    Args:
      frames: (time in s, increasing; image, uint8 or float of one shape).
      fps: of the clock, Hz.
      max_gap_s: longest time between two frames of one segment, s.

    Yields:
      Segment 0, 1, …; time of the tick, s, on the frames' own time axis; image: as it came where it passed
      through, else float32.

    Raises:
      ValueError: times that do not increase, or an fps or gap that is not positive.
    """
    if not fps > 0 or not max_gap_s > 0:
        raise ValueError(f"fps and max_gap_s must be above 0, got {fps} and {max_gap_s}")
    for segment, part in groupby(_segments(frames, max_gap_s), key=itemgetter(0)):
        for tick_s, image in _on_clock(((time_s, image) for _, time_s, image in part), 1 / fps):
            yield segment, tick_s, image


class Rate(NamedTuple):
    """Frames per second as the timestamps have it.

    Attributes:
      fps: Hz.
      constant: whether every frame lies within 5 % of a period of a clock of that rate, none missing.
    """

    fps: float
    constant: bool


def native_rate(times_s: np.ndarray) -> Rate:
    """Estimate the rate a camera ran at from its timestamps.

    A line through the times, so that timestamps in whole milliseconds do not bend it. Frames may be missing:
    if steps counted in whole median steps lie nearer to a line than the plain frame numbers do, they are
    what is used. (Counting alone would take a merely uneven rate for one with drops.)

    Args:
      times_s: [n], increasing, s, n ≥ 2.

    Returns:
      The rate, and whether it is constant.

    Raises:
      ValueError: fewer than two times, or times that do not increase.
    """
    times_s = np.asarray(times_s, np.float64)
    steps = np.diff(times_s)
    if len(steps) == 0 or not (steps > 0).all():
        raise ValueError(f"a rate needs at least two increasing times, got {len(times_s)}")
    fits = []
    for counts in (np.ones(len(steps)), np.maximum(1, np.rint(steps / np.median(steps)))):
        index = np.concatenate([[0], np.cumsum(counts)])
        index, since = index - index.mean(), times_s - times_s.mean()
        period = (index @ since) / (index @ index)
        off = np.abs(since - period * index).max() / period
        fits.append((off, period))
    off, period = min(fits)
    return Rate(float(1 / period), bool(fits[0][0] <= JITTER))


def resample_wave(values: np.ndarray, times_s: np.ndarray, new_times_s: np.ndarray) -> np.ndarray:
    """Read a wave at other times, by the rule that `uniform` has for frames.

    Linear interpolation; where the old samples are denser than the new ones, their average weighted by a
    hat of ± one new period, but in their gaps.

    Args:
      values: [n], finite.
      times_s: [n], increasing, s.
      new_times_s: [m], increasing, s; at most one period (old or new, the longer) outside `times_s`, where
        the first or last value is held.

    Returns:
      float64 [m].

    Raises:
      ValueError: lengths that differ, times that do not increase, or new times beyond the wave's ends.
    """
    values, times_s, new = (np.asarray(a, np.float64) for a in (values, times_s, new_times_s))
    if len(values) != len(times_s):
        raise ValueError(f"{len(values)} values have {len(times_s)} times")
    if len(new) == 0:
        return np.zeros(0)
    old_period = 1 / native_rate(times_s).fps
    period = 1 / native_rate(new).fps if len(new) > 1 else old_period
    before, after = times_s[0] - new[0], new[-1] - times_s[-1]
    if max(before, after) > (1 + JITTER) * max(period, old_period):
        raise ValueError(
            f"a wave of {times_s[0]:g}–{times_s[-1]:g} s cannot be read at {new[0]:g}–{new[-1]:g} s"
        )
    if old_period >= DENSER * period:
        return np.interp(new, times_s, values)
    reach = np.minimum(period, np.minimum(new - times_s[0], times_s[-1] - new))[:, None]
    # As many old samples as a hat of this width can meet, however they bunch.
    first = np.searchsorted(times_s, new - period)
    at = first[:, None] + np.arange((np.searchsorted(times_s, new + period) - first).max())
    at = np.minimum(at, len(values) - 1)
    weights = np.clip(1 - np.abs(times_s[at] - new[:, None]) / np.maximum(reach, old_period), 0, None)
    weights[:, 1:][at[:, 1:] == at[:, :-1]] = 0  # past the end the last sample came up again
    total = weights.sum(1)
    averaged = (weights * values[at]).sum(1) / np.maximum(total, 1e-12)
    # In a gap between the old samples a hat meets none of them.
    is_met = (reach[:, 0] > old_period) & (total > 1e-6)
    return np.where(is_met, averaged, np.interp(new, times_s, values))


def _segments(frames, max_gap_s):
    """Tell every frame the number of its unbroken segment."""
    segment, last_s = 0, None
    for time_s, image in frames:
        if last_s is not None:
            if not time_s > last_s:
                raise ValueError(f"time must increase, got {time_s} s after {last_s} s")
            segment += time_s - last_s > max_gap_s
        last_s = time_s
        yield segment, time_s, image


def _on_clock(frames, period):
    """Put one segment on its clock: yields (time of the tick, image)."""
    near: deque[tuple[float, np.ndarray]] = deque()  # the frames that the next tick can still need
    start = tick_s = None
    tick = 0
    for frame in frames:
        if start is None:
            start = tick_s = frame[0]
        near.append(frame)
        # A tick is decided once no later frame can matter to it.
        while tick_s + period <= frame[0]:
            yield tick_s, _at(tick_s, near, period)
            tick += 1
            tick_s = start + tick * period
            while len(near) > 1 and near[1][0] <= tick_s - period:
                near.popleft()
    while tick_s <= near[-1][0] + JITTER * period:
        yield tick_s, _at(tick_s, near, period)
        tick += 1
        tick_s = start + tick * period


def _at(tick_s, near, period):
    """Read the image at a tick from the frames around it; `near` begins at or before the tick."""
    after = next((i for i, (time_s, _) in enumerate(near) if time_s > tick_s), None)
    if after is None:
        return near[-1][1]
    (left_s, left), (right_s, right) = near[after - 1], near[after]
    spacing = right_s - left_s
    # Symmetric at a segment's ends too, or the average would be one of a later (or earlier) moment.
    reach = min(period, tick_s - near[0][0], near[-1][0] - tick_s)
    if spacing < DENSER * period and reach > spacing:
        weights = [max(0.0, 1 - abs(time_s - tick_s) / reach) for time_s, _ in near]
        images = (w / sum(weights) * im.astype(np.float32) for w, (_, im) in zip(weights, near, strict=True))
        return sum(images)
    if tick_s - left_s <= JITTER * period:
        return left
    if right_s - tick_s <= JITTER * period:
        return right
    share = (tick_s - left_s) / spacing
    return (1 - share) * left.astype(np.float32) + share * right.astype(np.float32)
