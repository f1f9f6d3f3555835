"""How like real footage the simulated is: motion, colour, noise and compression, in numbers side by side.

    python benchmarks/accuracy/likeness.py NAME=CLIP,CLIP... [NAME=CLIP...]

A name stands for one kind of footage, such as `real_webcam=a.mp4,b.mp4`, and becomes a row: the median
over its clips. Writes likeness.md and likeness.json beside this file; clips that are there already are not
measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np

from sspd_jax.errors import UserError
from sspd_jax.runtime import storage
from sspd_jax.video import decode, skin_traces
from sspd_jax.video.face_mesh import load_networks

HERE = Path(__file__).parent
RESULTS, REPORT = HERE / "likeness.json", HERE / "likeness.md"
SLOW_HZ, PULSE_HZ, ABOVE_HZ = (0.1, 0.6), (0.7, 3.0), (3.5, 6.0)
GREYS = ((40, 80), (90, 130), (150, 200))
MOST_FRAMES = 450
SAYS = {
    "move_slow": "head, 0.1–0.6 Hz",
    "move_pulse": "head, 0.7–3 Hz",
    "turn_slow": "turning, slow",
    "turn_pulse": "turning, 0.7–3",
    "green_slow": "green, slow",
    "green_pulse": "green, 0.7–3",
    "green_above": "green, 3.5–6",
    "red_to_green": "red : green",
    "blue_to_green": "blue : green",
    "noise_dark": "noise at 40–80",
    "noise_middle": "90–130",
    "noise_bright": "150–200",
    "bits_per_pixel": "bits a pixel",
}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="NAME=CLIP,CLIP")
    args = parser.parse_args()
    networks, _ = load_networks()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for given in args.sets:
        name, _, clips = given.partition("=")
        for clip in map(Path, clips.split(",")):
            label = f"{clip.parent.name}/{clip.name}"
            if label in rows.get(name, {}):
                continue
            try:
                measured = measure(clip, networks)
            except UserError as error:
                print(error, file=sys.stderr)
                continue
            rows.setdefault(name, {})[label] = measured
            storage.write_text(RESULTS, json.dumps(rows, indent=1) + "\n")
            print(name, label, flush=True)
    storage.write_text(REPORT, report(rows))
    return 0


def measure(clip: Path, networks) -> dict[str, float]:
    """Return what one clip is like; `SAYS` names the numbers."""
    noise = _Noise()

    def frames():
        for number, (time_s, picture) in enumerate(decode.frames(clip)):
            if number == MOST_FRAMES:
                return
            noise.see(picture)
            yield time_s, picture

    traces = skin_traces.skin_traces(frames(), networks)
    found = traces.found
    if found.sum() < 60:
        raise UserError(f"{clip}: shows a face in {found.sum()} frames only; give another clip")
    times_s = traces.time_s
    fps = 1 / float(np.median(np.diff(times_s)))
    grid_s = np.arange(times_s[found][0], times_s[found][-1], 1 / fps)

    def band(values, hz):
        even = np.interp(grid_s, times_s[found], values[found])
        return _band(even, fps, hz)

    x, y, spread, _ = traces.geometry.T
    unit = float(np.nanmedian(spread))
    yaw, pitch = traces.pose[:, 0], traces.pose[:, 1]
    red, green, blue = (channel / np.nanmean(channel) for channel in traces.skin.T)
    facts = decode.read_facts(clip)
    frames_in_all = (facts.duration_s or 0) * (facts.fps or fps)
    return {
        "move_slow": 100 * float(np.hypot(band(x, SLOW_HZ), band(y, SLOW_HZ))) / unit,
        "move_pulse": 100 * float(np.hypot(band(x, PULSE_HZ), band(y, PULSE_HZ))) / unit,
        "turn_slow": float(np.hypot(band(yaw, SLOW_HZ), band(pitch, SLOW_HZ))),
        "turn_pulse": float(np.hypot(band(yaw, PULSE_HZ), band(pitch, PULSE_HZ))),
        "green_slow": 100 * band(green, SLOW_HZ),
        "green_pulse": 100 * band(green, PULSE_HZ),
        "green_above": 100 * band(green, ABOVE_HZ),
        "red_to_green": band(red, PULSE_HZ) / band(green, PULSE_HZ),
        "blue_to_green": band(blue, PULSE_HZ) / band(green, PULSE_HZ),
        **noise.told(),
        "bits_per_pixel": 8 * clip.stat().st_size / max(frames_in_all, 1) / (facts.width * facts.height),
    }


class _Noise:
    """What changes from frame to frame where nothing moves: of each grey, the stillest tenth."""

    def __init__(self):
        self._before: np.ndarray | None = None
        self._seen: list[list[float]] = [[] for _ in GREYS]

    def see(self, picture: np.ndarray) -> None:
        green = picture[..., 1].astype(np.float32)
        if self._before is not None and green.shape == self._before.shape:
            height, width = (side // 8 * 8 for side in green.shape)
            blocks = [
                values[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 64)
                for values in (green, green - self._before)
            ]
            level, change = blocks[0].mean(1), blocks[1].std(1) / np.sqrt(2)
            for (low, high), seen in zip(GREYS, self._seen, strict=True):
                inside = change[(level >= low) & (level < high)]
                if len(inside) >= 40:
                    seen.append(float(np.quantile(inside, 0.1)))
        self._before = green

    def told(self) -> dict[str, float]:
        names = ("noise_dark", "noise_middle", "noise_bright")
        middles = (float(np.median(seen)) if seen else float("nan") for seen in self._seen)
        return dict(zip(names, middles, strict=True))


def _band(values: np.ndarray, fps: float, hz: tuple[float, float]) -> float:
    """Return the standard deviation of a trace inside a band, of its spectrum under Hann's window."""
    window = np.hanning(len(values))
    power = 2 * np.abs(np.fft.rfft((values - values.mean()) * window)) ** 2 / (window**2).sum() / len(values)
    at = np.fft.rfftfreq(len(values), 1 / fps)
    return float(np.sqrt(power[(at >= hz[0]) & (at < hz[1])].sum()))


def report(rows: dict) -> str:
    """Return the table as Markdown."""
    lines = [
        "# How like real footage the simulated is",
        "",
        "`python benchmarks/accuracy/likeness.py`: medians over clips; of each at most 15 s. Motion in",
        "per cent of the landmarks' spread (an ordinary face is 3.5 wide), turning in degrees, green in",
        "per cent of its mean over the skin, each the standard deviation inside the band. Noise: change",
        "from frame to frame, standard deviation, grey levels, by brightness, in the stillest tenth of",
        "the picture after the codec; 0.00 where the codec repeats it.",
        "",
        "| footage | clips | " + " | ".join(SAYS.values()) + " |",
        "|---|---|" + "---|" * len(SAYS),
    ]
    for name, clips in rows.items():
        cells = [_median([clip[key] for clip in clips.values()]) for key in SAYS]
        lines.append(f"| {name} | {len(clips)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Run on {platform.machine()}, Python {platform.python_version()}.", ""])


def _median(values: list[float]) -> str:
    values = [value for value in values if np.isfinite(value)]
    return f"{np.median(values):.2f}" if values else "–"


if __name__ == "__main__":
    sys.exit(main())
