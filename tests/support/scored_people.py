"""Tested people made by hand: waves with known rates, without pictures or networks."""

import numpy as np

from sspd_jax.datasets.format import Segment
from sspd_jax.evaluation.scoring import Sample
from sspd_jax.evaluation.table import Row
from sspd_jax.heart_rate.wave import Wave

FPS = 30.0


def pulse(bpm, seconds=20.0, phase=0.0):
    """A pulse with a second harmonic, float64 [t]."""
    t = 2 * np.pi * bpm / 60 * np.arange(round(seconds * FPS)) / FPS + phase
    return np.sin(t) + 0.25 * np.sin(2 * t + 0.8)


def segment(person, frames=600, **meta):
    """The entry of a recording without a file."""
    return Segment(
        segment_id=f"{person}/0",
        recording_id=person,
        person_id=person,
        number=0,
        start_s=0.0,
        n_frames=frames,
        has_ppg=True,
        shard="",
        first_record=0,
        face_box=(0, 0, 1, 1),
        notes=(),
        meta=meta,
    )


def sample(person, bpm, waves, seconds=20.0, **meta):
    """A segment whose contact wave has a rate, and what methods made of it: name → [t]."""
    truth = pulse(bpm, seconds).astype(np.float32)
    made = {name: Wave(np.asarray(values), FPS) for name, values in waves.items()}
    return Sample(segment(person, len(truth), **meta), FPS, truth, made)


def people(error_bpm, count=6, seed=0, seconds=20.0, **methods):
    """People at 55 to 130 bpm, read by 'target' with an error and by `methods` with others, bpm."""
    rng = np.random.default_rng(seed)
    errors = {"target": error_bpm, **methods}
    made = []
    for i in range(count):
        bpm = 55 + 75 * i / max(1, count - 1)
        waves = {
            name: pulse(bpm + error, seconds, phase=1.0) + 0.05 * rng.standard_normal(round(seconds * FPS))
            for name, error in errors.items()
        }
        made.append(sample(f"p{i}", bpm, waves, seconds, light=("dim", "bright")[i % 2], serial=i * 1000))
    return made


def rows(*errors_bpm, method="target", person=None, true_bpm=72.0, confidence=(), **facts):
    """Windows of one method with these errors, each of a person of its own if none is named."""
    return [
        Row(
            recording=person or f"p{i}",
            person=person or f"p{i}",
            method=method,
            span="window",
            start_s=10.0 * i,
            duration_s=10.0,
            true_bpm=true_bpm + i,
            predicted_bpm=true_bpm + i + error,
            snr_db=error / 2,
            confidence=confidence[i] if len(confidence) else float("nan"),
            facts=facts,
        )
        for i, error in enumerate(errors_bpm)
    ]
