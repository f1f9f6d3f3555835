"""Rate, evidence and confidence in JavaScript are those of the package, number by number."""

import dataclasses
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sspd_jax.heart_rate import confidence, skin_evidence
from sspd_jax.heart_rate.signal_quality import BLOOD, GREY
from sspd_jax.inference import skin_reading, skin_segment
from sspd_jax.inference.methods import AUTO
from sspd_jax.inference.windows import Settings
from sspd_jax.video import skin_map
from sspd_jax.video.skin_traces import FIELDS, SkinTraces

WEB = Path(__file__).parents[2] / "sspd_jax" / "inference" / "web_page"
TOLERANCE = 1e-3
PATCHES = len(skin_map.PATCHES)
SKIN = np.array([170.0, 120.0, 95.0])

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")

SCRIPT = """
import { readFileSync } from "node:fs";
import { judgeWindow, readWaves } from "./skin_reading.mjs";

const revive = (x) => {
  if (!Array.isArray(x)) return x;
  return Array.isArray(x[0]) ? x.map(revive) : Float64Array.from(x, (value) => value ?? NaN);
};
const [file, table] = process.argv.slice(1).map((name) => JSON.parse(readFileSync(name, "utf8")));
const said = file.map(({ traces, learned, fps, windows }) => {
  const columns = Object.entries(traces).map(([name, values]) => [name, revive(values)]);
  const revived = Object.fromEntries(columns);
  try {
    const waves = readWaves(revived, fps);
    if (learned) waves.sspd = revive(learned);
    return windows.map(([start, end]) => judgeWindow(revived, waves, fps, start, end, table));
  } catch (error) {
    return error.message;
  }
});
console.log(JSON.stringify(said));
"""


def pulse(times_s, bpm, wander=0.03):
    """A pulse of 0.4 % whose rate goes up and down by a share once in 8 s."""
    rate = bpm / 60 * (1 + wander * np.sin(2 * np.pi * times_s / 8))
    return 0.004 * np.sin(2 * np.pi * np.cumsum(rate) * (times_s[1] - times_s[0]))


def recording(
    change, fps, *, seed=0, noise=0.02, colour=BLOOD, eyes=0.0, behind=0.0, nod=0.0, area=300.0, **fields
):
    """Traces of a face whose colour changes by `change` [t], and by a share of it eyes and wall."""
    rng = np.random.default_rng(seed)
    frames = len(change)

    def picture(gain, grain, *more):
        shown = SKIN * (1 + gain * np.multiply.outer(change, np.broadcast_to(colour, (*more, 3))))
        return shown + rng.normal(0, grain * noise, shown.shape)

    tremble = 25 * noise * rng.normal(0, 1, (frames, 7)) * skin_evidence.TREMBLE
    tremble[:, 1] += nod * change
    geometry = np.column_stack([*(80 * tremble[:, :2].T), rng.normal(0, 0.1, frames), tremble[:, 3]])
    geometry[:, :3] += [320, 240, 80]
    shown = {
        "time_s": np.arange(frames) / fps,
        "skin": picture(1.0, 1),
        "skin_area": np.full(frames, 6000.0),
        "patches": picture(1.0, 3, PATCHES),
        "patch_area": np.full((frames, PATCHES), area),
        "eyes": picture(eyes, 3),
        "crop": picture(1.0, 1),
        "behind": picture(behind, 1),
        "pose": np.degrees(tremble[:, 4:]),
        "geometry": geometry,
        "residual": tremble[:, :4] / 3,
    }
    assert shown.keys() == FIELDS.keys()
    return SkinTraces(**(shown | fields))


def hidden(shape, *, of=()):
    """NaN where parts of something were never seen, over a colour that changes little."""
    values = np.broadcast_to(SKIN, (*shape, 3)) + np.random.default_rng(3).normal(0, 0.1, (*shape, 3))
    values = values.copy()
    values[:, list(of) if of else slice(None)] = np.nan
    return values


def cases():
    """Name → (traces, frames per second, a network's wave or None, windows)."""
    at30, at25, at12 = (np.arange(n) / fps for n, fps in ((450, 30), (260, 25), (150, 12)))
    rng = np.random.default_rng(5)
    beat = pulse(at30, 78)
    many = [(0, 300), (150, 450)]
    learned = np.float64(beat + rng.normal(0, 0.002, 450))
    ends_early = learned.copy()
    ends_early[400:] = np.nan
    still = np.broadcast_to(SKIN, (450, 3)).copy()
    grey = np.repeat(120 * (1 + beat)[:, None], 3, axis=1) + rng.uniform(-0.2, 0.2, (450, 3))
    none = np.full((450, 3), np.nan)
    patch_area = np.full((450, PATCHES), 300.0)
    patch_area[:, [2, 9]] = 0, 10
    patches = recording(beat, 30).patches.copy()
    patches[:, 2] = np.nan

    def replaced(**fields):
        return dataclasses.replace(recording(beat, 30), **fields)

    return {
        "a pulse": (recording(beat, 30), 30.0, None, many),
        "a pulse that a network hears": (recording(beat, 30, seed=1), 30.0, learned, many),
        "a network that ends early": (recording(beat, 30, seed=1), 30.0, ends_early, many),
        "another network": (recording(beat, 30, noise=0.2), 30.0, pulse(at30, 110), many),
        "a faint pulse": (recording(beat / 6, 30, noise=0.1), 30.0, None, many),
        "noise": (recording(0 * beat, 30), 30.0, None, many),
        "noise, and too little of it": (recording(0 * beat, 30), 30.0, None, [(0, 150), (9, 241)]),
        "a lamp": (recording(beat, 30, colour=GREY, eyes=1.0, behind=1.0), 30.0, None, many),
        "a lamp like clockwork": (recording(pulse(at30, 90, 0), 30, eyes=0.7), 30.0, None, many),
        "a nod": (recording(3 * beat, 30, nod=20.0, colour=GREY), 30.0, None, many),
        "patches that are hidden": (
            recording(beat, 30, patches=patches, patch_area=patch_area, eyes=0.2),
            30.0,
            None,
            many,
        ),
        "no patch, no eyes, nothing behind": (
            recording(
                *(beat, 30),
                patches=hidden((450, PATCHES)),
                patch_area=np.zeros((450, PATCHES)),
            ),
            30.0,
            None,
            many,
        ),
        "eyes and wall unknown": (replaced(eyes=none, behind=none), 30.0, None, many),
        "small patches": (recording(beat, 30, area=21.0, noise=0.05), 30.0, None, many),
        "black and white": (replaced(skin=grey), 30.0, None, many),
        "nothing changes": (replaced(skin=still), 30.0, None, many),
        "dark": (replaced(skin=recording(beat, 30).skin / 60), 30.0, None, many),
        "25 a second, short": (recording(pulse(at25, 61), 25), 25.0, None, [(0, 250), (1, 176), (3, 128)]),
        "12 a second": (recording(pulse(at12, 95), 12), 12.0, None, [(0, 120), (30, 150)]),
        "nearly 30 a second": (recording(beat, 29.97), 29.97, None, many),
        "fast": (recording(pulse(at30, 171), 30), 30.0, None, many),
    }  # fmt: skip


def as_json(values):
    """Columns of what is [t, ...]; NaN as null."""
    if values.ndim == 1:
        return [None if math.isnan(value) else value for value in values.tolist()]
    return [as_json(column) for column in np.moveaxis(values, 1, 0)]


def said_by_node(recordings, folder):
    content = []
    for traces, fps, learned, windows in recordings:
        columns = {
            "skin": traces.skin,
            "skinArea": traces.skin_area,
            "patches": traces.patches,
            "patchArea": traces.patch_area,
            "eyes": traces.eyes,
            "behind": traces.behind,
            "track": skin_evidence.track(traces.geometry, traces.residual, traces.pose),
        }
        content.append(
            {
                "traces": {name: as_json(values) for name, values in columns.items()},
                "learned": None if learned is None else as_json(learned),
                "fps": fps,
                "windows": windows,
            }
        )
    file = folder / "traces.json"
    file.write_text(json.dumps(content))
    command = ["node", "--input-type=module", "--eval", SCRIPT, str(file), str(confidence.WEIGHTS)]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def read_here(traces, fps, learned, windows):
    segment = skin_segment.read_waves(traces, fps, AUTO)
    if learned is not None:
        segment = dataclasses.replace(segment, waves={**segment.waves, "sspd": learned})
    for start, end in windows:
        window = segment.window(start, end)
        judged, name, upright = skin_reading.judge_window(window, AUTO, Settings())
        weighed = skin_reading.weigh(window, AUTO, Settings())
        yield judged, name, upright, None if isinstance(weighed, str) else weighed.evidence


CASES = cases()


@pytest.fixture(scope="module")
def in_javascript(tmp_path_factory):
    said = said_by_node(CASES.values(), tmp_path_factory.mktemp("traces"))
    return dict(zip(CASES, said, strict=True))


def close(found, wanted):
    if wanted is None or (isinstance(wanted, float) and math.isnan(wanted)):
        return found is None  # JSON has no NaN
    return found is not None and abs(found - wanted) <= TOLERANCE * max(1, abs(wanted))


@pytest.mark.parametrize("name", CASES)
def test_a_window_is_judged_alike(in_javascript, name):
    case = CASES[name]
    assert not isinstance(in_javascript[name], str), in_javascript[name]
    for found, (judged, wave, upright, evidence) in zip(in_javascript[name], read_here(*case), strict=True):
        assert close(found["confidence"], judged.confidence)
        assert close(found["bpm"], judged.heart_rate_bpm)
        assert close(found["rate"], judged.candidate_bpm)
        assert found["why"] == judged.why
        assert found["wave"] == wave
        assert found["estimates"].keys() == judged.estimates_bpm.keys()
        for method, bpm in judged.estimates_bpm.items():
            assert close(found["estimates"][method], bpm), method
        if judged.interval_bpm is None:
            assert found["interval"] is None
        else:
            assert all(map(close, found["interval"], judged.interval_bpm))
        if evidence is None:
            assert "evidence" not in found
            continue
        assert close(found["upright"], upright)
        assert found["evidence"].keys() == {field.name for field in dataclasses.fields(evidence)}
        for field, value in dataclasses.asdict(evidence).items():
            assert close(found["evidence"][field], value), (field, found["evidence"][field], value)


def test_the_cases_hold_readings_and_refusals_of_every_sort(in_javascript):
    whys = {window["why"] for windows in in_javascript.values() for window in windows}
    assert "" in whys and len(whys) >= 7, whys
    bpm = [window["bpm"] for windows in in_javascript.values() for window in windows if window["bpm"]]
    assert min(bpm) < 65 and max(bpm) > 165


def test_too_short_a_recording_is_said(tmp_path):
    short = recording(np.zeros(40), 30)
    (said,) = said_by_node([(short, 30.0, None, [(0, 40)])], tmp_path)
    with pytest.raises(ValueError, match=r"a window of 1\.6 s has 48 samples, the trace only 39") as raised:
        skin_segment.read_waves(short, 30.0, AUTO)
    assert said == str(raised.value)
