"""How heads move: tracks of real talking heads, as numbers, and sway, nods, rocking, chewing and steps.

`tracks.npz` is made by `data/make_tracks.py`.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from sspd_jax.simulation.footage import to_and_fro
from sspd_jax.simulation.random_signals import integral, wander

TRACKS = Path(__file__).with_name("tracks.npz")
TRACK_HZ = 25.0
TRACK_ROWS = ("yaw", "pitch", "roll", "x", "y", "nearer", "lips", "width", "eyes", "brows")
UNIT_DM = 0.78  # root mean square distance of the landmarks of a face from their middle
POSE = ("yaw", "pitch", "roll", "x", "y", "z")
"""Of a head: angles in rad (to the picture's right, down, clockwise); place in dm (right, up, nearer)."""
MOVES = ("jaw", "smile", "pucker", "wide", "blink", "brows_up", "brows_down")
RHYTHM_HZ = (0.7, 2.4)  # of what could be taken for a pulse
EJECTION_DM = 0.0015  # by which a head recoils with each beat (ballistocardiogram), amplitude


@dataclasses.dataclass(frozen=True)
class Habits:
    """How much a person moves. Amplitudes are standard deviations unless said otherwise.

    Attributes:
      sway_deg: Slow turning, nodding and tilting, below 0.35 Hz, degrees.
      sway_dm: Slow displacement, dm.
      talk: Share of a real talking head's movement, 0 to 1.
      rhythm_deg: Nodding, turning and tilting in bursts at rates of a pulse, amplitude, degrees.
      rhythm_dm: Rocking in bursts at rates of a pulse, amplitude, dm.
      chew: Opening of the jaw at rates of a pulse, amplitude, 0 to 1.
      steps_dm: Bobbing with steps, amplitude, dm; the camera bobs, too.
      shake_px: Trembling of the hand that holds the camera, below 6 Hz, pixels of a picture 480 high.
    """

    sway_deg: float = 1.0
    sway_dm: float = 0.05
    talk: float = 0.0
    rhythm_deg: float = 0.0
    rhythm_dm: float = 0.0
    chew: float = 0.0
    steps_dm: float = 0.0
    shake_px: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """How a head and the camera move in a recording.

    Attributes:
      pose: Name in `POSE` → float64 [t].
      moves: Name in `MOVES` → how far each movement of the face goes, float64 [t], about 0 to 1.
      shake_px: Columns and rows by which the camera is off, pixels of a picture 480 high, float64 [2, t].
    """

    pose: dict[str, np.ndarray]
    moves: dict[str, np.ndarray]
    shake_px: np.ndarray


@functools.cache
def load_tracks() -> dict[str, np.ndarray]:
    """Read the tracks that travel with the package: name → float32 [10, n], rows as in `TRACK_ROWS`."""
    with np.load(TRACKS) as file:
        return {name: file[name].astype(np.float32) / 1000 for name in sorted(file.files)}


def draw_motion(
    rng: np.random.Generator, habits: Habits, tracks: tuple[str, ...], times_s: np.ndarray, ppg: np.ndarray
) -> Motion:
    """Draw how a head moves.

    Args:
      rng: Random generator.
      habits: How much it moves.
      tracks: Names of the tracks to choose from.
      times_s: Times of the frames, s, float64 [t].
      ppg: The pulse at these times, float64 [t]: the head recoils a little with each beat.

    Returns:
      The motion.
    """
    degree = np.pi / 180

    def slow():
        return wander(rng, 0.02, 0.35, slope=-0.5)(times_s)

    pose = {
        name: habits.sway_deg * degree * share * slow()
        for name, share in zip(POSE[:3], (1, 0.7, 0.5), strict=True)
    }
    pose |= {name: habits.sway_dm * share * slow() for name, share in zip(POSE[3:], (1, 0.5, 1), strict=True)}
    moves = {name: np.zeros(len(times_s)) for name in MOVES}
    moves["blink"] += _blinks(rng, times_s)
    moves["brows_up"] += 0.1 * np.clip(slow(), 0, None)

    def burst(often: float = 0.5):
        """Return something rhythmic that comes and goes, float64 [t], amplitude 1."""
        strength = np.clip(wander(rng, 0.03, 0.2)(times_s) + often, 0, 1)
        middle = rng.uniform(RHYTHM_HZ[0] + 0.1, RHYTHM_HZ[1] - 0.1)
        hz = np.clip(middle + 0.1 * wander(rng, 0.02, 0.12)(times_s), *RHYTHM_HZ)
        return strength * np.sin(rng.uniform(0, 2 * np.pi) + 2 * np.pi * integral(hz, times_s))

    for name, share in zip(POSE[:3], (0.7, 1, 0.5), strict=True):
        pose[name] += habits.rhythm_deg * degree * share * burst()
    for name in ("x", "y", "z"):
        pose[name] += habits.rhythm_dm * burst()
    moves["jaw"] += habits.chew * np.abs(burst(0.8))
    shake = habits.shake_px * np.stack([wander(rng, 0.3, 6, slope=-1.5)(times_s) for _ in range(2)])
    if habits.steps_dm:
        hz = rng.uniform(1.6, 2.1) + 0.05 * wander(rng, 0.02, 0.2)(times_s)
        step = 2 * np.pi * integral(hz, times_s) + rng.uniform(0, 2 * np.pi)
        pose["y"] += habits.steps_dm * np.sin(step)
        pose["x"] += 0.6 * habits.steps_dm * np.sin(step / 2)
        pose["pitch"] += 0.1 * habits.steps_dm * np.sin(step + 1)
        shake += 30 * habits.steps_dm * np.stack([0.6 * np.sin(step / 2 + 1), np.sin(step + 2)])
    if habits.talk:
        _talk(rng, habits.talk, tracks, times_s, pose, moves)
    # A head recoils as blood is thrown up into it (Starr et al., Am. J. Physiol. 127 (1939), 1–28).
    thrown = np.gradient(ppg)
    pose["y"] += EJECTION_DM * thrown / max(float(np.abs(thrown).max()), 1e-9)
    return Motion(pose, {name: np.clip(way, 0, 1.1) for name, way in moves.items()}, shake)


def _talk(rng, share, tracks, times_s, pose, moves) -> None:
    """Add the movement of a real talking head, at its own pace and to and fro, in place."""
    track = load_tracks()[tracks[rng.integers(len(tracks))]]
    length = track.shape[1]
    speed = rng.uniform(0.85, 1.2)
    at = rng.uniform(0, length) + times_s * TRACK_HZ * speed
    order = to_and_fro(length, int(at[-1]) + 2)
    row = dict(
        zip(
            TRACK_ROWS, (np.interp(at, np.arange(len(order)), values[order]) for values in track), strict=True
        )
    )
    mirrored = -1 if rng.random() < 0.5 else 1
    pose["yaw"] += share * mirrored * row["yaw"]
    pose["pitch"] += share * row["pitch"]
    pose["roll"] += share * mirrored * row["roll"]
    pose["x"] += share * UNIT_DM * mirrored * row["x"]
    pose["y"] -= share * UNIT_DM * row["y"]
    pose["z"] += share * 4 * row["nearer"]  # of a head 6 dm away, about
    jaw = np.clip(row["lips"] - np.quantile(track[6], 0.1), 0, None)
    moves["jaw"] += share * 1.6 * jaw
    moves["smile"] += share * np.clip(3 * (row["width"] - np.median(track[7])), 0, 1)
    moves["pucker"] += share * np.clip(-3 * (row["width"] - np.median(track[7])), 0, 1)
    open_eyes = np.quantile(track[8], 0.8)
    moves["blink"] += share * np.clip(1.2 * (open_eyes - row["eyes"]) / max(open_eyes, 0.02), 0, 1)
    moves["brows_up"] += share * np.clip(6 * (row["brows"] - np.median(track[9])), 0, 1)
    moves["brows_down"] += share * np.clip(-6 * (row["brows"] - np.median(track[9])), 0, 1)


def _blinks(rng, times_s) -> np.ndarray:
    """Return how far the lids are closed: a blink of a fifth of a second every few seconds, float64 [t]."""
    closed = np.zeros(len(times_s))
    at = rng.exponential(3)
    while at < times_s[-1]:
        closed = np.maximum(closed, np.exp(-(((times_s - at) / 0.07) ** 2)))
        at += 0.4 + rng.exponential(3.5)
    return closed
