"""How hard each preset of simulated people is to read, and whether its pulse-free twins are refused.

    python benchmarks/accuracy/presets.py RECORDINGS [--people=8] [--seconds=20] [--workers=2]

Films every preset and its twins into RECORDINGS, reads each by `auto`, and writes presets.md and
presets.json beside this file: of each estimator how many windows are right, and of what is given how
much. Started again, it goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np

import sspd_jax
from sspd_jax.errors import UserError
from sspd_jax.runtime import storage
from sspd_jax.simulation.people.film import PULSE_FREE
from sspd_jax.simulation.people.presets import PRESETS, VERSION
from sspd_jax.simulation.people.recordings import SHEET, write_people_recordings

HERE = Path(__file__).parent
RESULTS, REPORT = HERE / "presets.json", HERE / "presets.md"
METHODS = ("green", "chrom", "pos", "omit", "sspd", "auto")
RIGHT_BPM = 3.0
WINDOW = "10 s windows every 5 s"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--split", default="choose")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--twins", type=int, default=1, help="people in each pulse-free kind (default: 1)")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--twins_of", nargs="*", default=list(PRESETS), help="presets that get twins")
    args = parser.parse_args()
    settings = {"version": VERSION, "people": args.people, "seconds": args.seconds, "split": args.split}
    settings["twins"] = args.twins
    rows = {}
    if RESULTS.exists():
        before = json.loads(RESULTS.read_text())
        if before["settings"] == settings:
            rows = before["rows"]
    for preset in args.presets:
        common = {"preset": preset, "split": args.split, "seconds": args.seconds, "workers": args.workers}
        films = write_people_recordings(args.recordings / preset, people=args.people, **common)
        if args.twins and preset in args.twins_of:
            free = args.recordings / f"{preset}_free"
            films += write_people_recordings(free, people=args.twins, kinds=PULSE_FREE, **common)
        for folder in films:
            name = f"{folder.parent.name}/{folder.name}"
            if name not in rows:
                rows[name] = _read(folder)
                storage.write_text(RESULTS, json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")
                print(name, rows[name].get("why", ""), flush=True)
        storage.write_text(REPORT, _report(settings, rows))
    return 0


def _read(folder: Path) -> dict:
    """Read one recording; returns what is known of it and of its windows."""
    (video,) = folder.glob("vid.*")
    sheet = json.loads((folder / SHEET).read_text())
    _, rate, times_s = np.loadtxt(folder / "ground_truth.txt")
    row = {"preset": sheet["preset"], "kind": sheet["pulse_free"], "person": sheet["person"], "windows": []}
    row["bits_per_pixel"] = sheet["encoding"]["bits_per_pixel"]
    try:
        reading = sspd_jax.read(video)
    except UserError as error:
        return row | {"why": str(error).removeprefix(f"{video}: ")}
    for window in reading.windows:
        inside = (times_s >= window.start_s) & (times_s < window.start_s + window.duration_s)
        row["windows"].append(
            {
                "truth": round(float(rate[inside].mean()), 2) if sheet["pulse"] else None,
                "given": window.heart_rate_bpm,
                "confidence": round(window.confidence, 4),
                "why": window.why,
                "estimates": {**window.estimates_bpm, "auto": window.candidate_bpm},
            }
        )
    return row


def _report(settings: dict, rows: dict) -> str:
    lines = [
        "# How hard the presets are",
        "",
        f"`python benchmarks/accuracy/presets.py`: version {settings['version']} of the presets, "
        f"{settings['people']} people of the part `{settings['split']}`, {settings['seconds']:g} s each, "
        f"{WINDOW}, read by `auto`.",
        "Per cent of windows within 3 bpm of the true rate, nothing refused; in brackets the mean absolute",
        "error, bpm. `sspd` is the network that ships with the package. Given: per cent of windows with a",
        "reading; right: of these.",
        "",
        "| preset | windows | " + " | ".join(METHODS) + " | given | right |",
        "|---|---|" + "---|" * (len(METHODS) + 2),
    ]
    for preset in PRESETS:
        mine = [row for row in rows.values() if row["preset"] == preset and row["kind"] is None]
        windows = [window for row in mine for window in row["windows"]]
        if not windows:
            continue
        cells = [_cell(windows, method) for method in METHODS]
        given = [window for window in windows if window["given"] is not None]
        right = [abs(window["given"] - window["truth"]) <= RIGHT_BPM for window in given]
        share = f"{100 * np.mean(right):.0f}" if right else "–"
        cells += [f"{100 * len(given) / len(windows):.0f}", share]
        lines.append(f"| `{preset}` | {len(windows)} | " + " | ".join(cells) + " |")
    lines += ["", "## By skin", "", "| melanin | windows | " + " | ".join(METHODS) + " | given |"]
    lines.append("|---|---|" + "---|" * (len(METHODS) + 1))
    pulsing = [row for row in rows.values() if row["kind"] is None]
    for low, high in ((0, 0.03), (0.03, 0.06), (0.06, 0.12), (0.12, 1)):
        mine = [row for row in pulsing if low <= row["person"]["melanin"] < high]
        windows = [window for row in mine for window in row["windows"]]
        if windows:
            cells = [_cell(windows, method) for method in METHODS]
            cells.append(f"{100 * np.mean([window['given'] is not None for window in windows]):.0f}")
            lines.append(f"| {low:g}–{high:g} | {len(windows)} | " + " | ".join(cells) + " |")
    lines += ["", "## Without a pulse", "", "Readings that were given, of windows that were looked at.", ""]
    lines += [
        "| kind | " + " | ".join(f"`{preset}`" for preset in PRESETS) + " |",
        "|---|" + "---|" * len(PRESETS),
    ]
    for kind in PULSE_FREE:
        cells = []
        for preset in PRESETS:
            mine = [row for row in rows.values() if row["kind"] == kind and row["preset"] == preset]
            windows = [window for row in mine for window in row["windows"]]
            given = sum(window["given"] is not None for window in windows)
            faceless = sum("why" in row for row in mine)
            cells.append(f"{given} of {len(windows)}" + (", no face" if faceless else "") if mine else "–")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Run on {platform.machine()}, Python {platform.python_version()}.", ""])


def _cell(windows: list[dict], method: str) -> str:
    pairs = [(w["estimates"].get(method), w["truth"]) for w in windows]
    errors = np.array([abs(estimate - truth) for estimate, truth in pairs if estimate is not None])
    if not len(errors):
        return "–"
    return f"{100 * np.sum(errors <= RIGHT_BPM) / len(windows):.0f} ({errors.mean():.1f})"


if __name__ == "__main__":
    sys.exit(main())
