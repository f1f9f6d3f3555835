"""The classical methods and their filters once more, in NumPy and SciPy, as far from ours as they can be."""

import math

import numpy as np
from scipy import linalg, signal

WINDOW_S = 1.6
STILL = 1e-9


def bandpass(x, low_hz, high_hz, fps, order):
    """Butterworth forwards and backwards with filtfilt's padding."""
    sections = signal.butter(order, [low_hz, high_hz], "bandpass", output="sos", fs=fps)
    return signal.sosfiltfilt(sections, np.asarray(x, np.float64), padlen=3 * (2 * order + 1))


def detrend(x, lam):
    """Smoothness priors of [t] or [t, signals]."""
    x = np.asarray(x, np.float64)
    rows = np.ones(len(x) - 2)
    diagonals = np.zeros((3, len(x)))
    diagonals[0, 2:] = rows
    diagonals[1, 1:] = np.convolve(rows, [-2, -2])
    diagonals[2] = np.convolve(rows, [1, 4, 1])
    diagonals *= lam**2
    diagonals[2] += 1
    return x - linalg.solveh_banded(diagonals, x)


def green(rgb, fps):
    """The trace itself."""
    return np.array(rgb[:, 1])


def chrom(rgb, fps):
    """Half-overlapping windows side by side."""
    half = math.ceil(math.ceil(WINDOW_S * fps) / 2)
    red, green_, blue = _normalised(_windows(rgb, 2 * half)[::half])
    x = bandpass(3 * red - 2 * green_, 0.7, 2.5, fps, order=3)
    y = bandpass(1.5 * red + green_ - 1.5 * blue, 0.7, 2.5, fps, order=3)
    return _overlap_add(_balanced(x, y, -1))


def pos(rgb, fps):
    """Every window side by side, their pulses added by index."""
    length = math.ceil(WINDOW_S * fps)
    red, green_, blue = _normalised(_windows(rgb[:-1], length))
    pulses = _balanced(green_ - blue, green_ + blue - 2 * red, 1)
    pulses -= pulses.mean(axis=1, keepdims=True)
    at = np.arange(len(pulses))[:, None] + np.arange(length)
    wave = np.bincount(at.ravel(), pulses.ravel(), len(rgb))
    return bandpass(detrend(wave, 100), 0.75, 3, fps, order=1)


def pbv(rgb, fps):
    """Window by window, the 3 × 3 system as it is written.

    It is nearly singular where there is little noise, so it is solved to more digits than a float64 has.
    """
    half = math.ceil(math.ceil(WINDOW_S * fps) / 2)
    colours = np.moveaxis(_normalised(_windows(rgb, 2 * half)[::half]), 0, 1)
    spread = np.sqrt(colours.var(axis=2).mean(axis=0))
    signature = spread / np.linalg.norm(spread)
    white = np.ones(3) / math.sqrt(3)
    pulses = []
    for c in colours.astype(np.longdouble):
        changes = c - c.mean(axis=1, keepdims=True)
        covariance = changes @ changes.T / c.shape[1]
        chroma = np.trace(covariance) - white @ covariance @ white
        system = c @ c.T / c.shape[1] + 1e-4 * chroma * np.eye(3)
        w = np.zeros(3, np.longdouble)
        for _ in range(5):
            w += np.linalg.solve(system.astype(float), (signature - system @ w).astype(float))
        pulse = c.T @ w / (signature @ w)
        pulses.append(pulse - pulse.mean())
    return _overlap_add(np.array(pulses))


def lgi(rgb, fps):
    """By the singular vectors of the whole trace."""
    left, _, _ = np.linalg.svd(rgb.T, full_matrices=False)
    return ((np.eye(3) - np.outer(left[:, 0], left[:, 0])) @ rgb.T)[1]


def omit(rgb, fps):
    """By the orthogonal factor of the whole trace."""
    q, _ = np.linalg.qr(rgb.T)
    return ((np.eye(3) - np.outer(q[:, 0], q[:, 0])) @ rgb.T)[1]


def _windows(rgb, length):
    """Every window of the trace, [windows, 3, length]."""
    return np.lib.stride_tricks.sliding_window_view(np.asarray(rgb, np.float64), length, axis=0)


def _normalised(windows):
    """Every colour over its mean in the window, [3, windows, length]; no light gives 0."""
    mean = windows.mean(axis=2, keepdims=True)
    lit = (mean > 0).all(axis=1, keepdims=True)
    return np.moveaxis(np.divide(windows, mean, out=np.zeros(windows.shape), where=lit), 1, 0)


def _balanced(x, y, sign):
    """x ± y·σ(x)/σ(y) per window; 0 where a signal stands still."""
    x_spread, y_spread = x.std(axis=1, keepdims=True), y.std(axis=1, keepdims=True)
    moves = (x_spread > STILL) & (y_spread > STILL)
    ratio = np.divide(x_spread, y_spread, out=np.zeros_like(x_spread), where=moves)
    return np.where(moves, x + sign * ratio * y, 0.0)


def _overlap_add(pulses):
    half = pulses.shape[1] // 2
    wave = np.zeros((len(pulses) + 1) * half)
    for i, pulse in enumerate(pulses * signal.windows.hann(2 * half)):
        wave[i * half : (i + 2) * half] += pulse
    return wave
