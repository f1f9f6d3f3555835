"""How many windows of real people every method reads right, with nothing refused.

    python benchmarks/accuracy/real_people.py [--resume] [--methods pos chrom] [--people subject3 talk_d10]
    python benchmarks/accuracy/real_people.py --rival_python=DIR/bin/python

Two groups of people: real people with an oximeter beside (a folder in UBFC-rPPG's layout; the truth is the
spectral peak of the oximeter's pulse wave), and real talking heads with a known pulse put in
(`talking_heads.py`). Every video is read by `sspd_jax.read`, as a user would, by every method that the
package knows, by the network in `data/`, by the authors' published weights where they are at hand, and by
open-rppg where a Python that has it is named (`open_rppg.py`, the same clips in the same run).

A window of 10 s begins every 5 s. What the product would refuse counts too; what it gives is counted beside.
The table goes to real_people.md beside this file, every window to real_people.json. Both are written after
each clip and method: killed and started again with --resume, it goes on where it stopped, and with --resume
and --methods or --people it adds to what is there or, with --again, replaces it.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import talking_heads

import sspd_jax
from sspd_jax.checkpoints.convert import convert
from sspd_jax.cli.common import run
from sspd_jax.datasets.readers import ubfc_rppg
from sspd_jax.datasets.recording import Broken
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.evaluation import metrics
from sspd_jax.heart_rate import rate
from sspd_jax.inference import methods, windows
from sspd_jax.runtime import storage

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
PEOPLE = SHARED / "real" / "ubfc_crf23"
HEADS = SHARED / "real" / "clips"
WEIGHTS = SHARED / "reference" / "ubfc.pth"
KEPT = ROOT / "workdir" / "real_people"
REPORT = Path(__file__).with_suffix(".md")
SHIPPED = ROOT / "data" / "simulated_faces"

WINDOW_S, STRIDE_S = 10.0, 5.0
FPS = 30.0  # Hz, of the clock on which the truth's wave is read
NEAR_S = 1.0  # a window that begins farther from where one is due is another
RIGHT_BPM, NEARLY_BPM = 3.0, 5.0
SEED = 0  # of the pulses that are put in
GROUPS = {"people": "Real people, an oximeter beside", "heads": "Real talking heads, a known pulse put in"}
PUBLISHED = "published weights"
RIVALS = {"open-rppg FacePhys": "FacePhys.rlap", "open-rppg ME-chunk": "ME-chunk.rlap"}
REGIONS = ("skin", "crop")


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A video whose pulse is known.

    Attributes:
      name: unique.
      person: who is seen; intervals draw people.
      group: a name in `GROUPS`.
      file: of the video.
      times_s: of the known pulse, s on the video's clock. # float64 [m]
      pulse: its values, any unit. # float64 [m]
      made: how it was made, JSON's types; empty where it was not.
    """

    name: str
    person: str
    group: str
    file: Path
    times_s: np.ndarray
    pulse: np.ndarray
    made: Mapping[str, Any]

    def true_bpm(self, start_s: float) -> float:
        """Return the pulse's spectral peak in the window from `start_s` on, bpm."""
        ticks_s = start_s + np.arange(round(WINDOW_S * FPS)) / FPS
        return rate.spectral_peak_rate(np.interp(ticks_s, self.times_s, self.pulse), FPS)

    def starts_s(self) -> list[float]:
        """Return where windows are due, s."""
        end_s = self.times_s[-1] + np.median(np.diff(self.times_s))  # the last frame is seen for a while
        return [float(start_s) for start_s in np.arange(0.0, end_s - WINDOW_S + 0.5 / FPS, STRIDE_S)]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one method says of one window.

    Attributes:
      start_s: of the window, s.
      true_bpm: of the known pulse in it, bpm.
      bpm: read, though it may be refused; None where there is not even that.
      confidence: 0 to 1, the method's own.
      given: whether the product would give it; None of a method that gives everything.
    """

    start_s: float
    true_bpm: float
    bpm: float | None
    confidence: float | None
    given: bool | None


Adapter = Callable[[Clip], list[Reading]]


def real_people(source: Path) -> Iterator[Clip]:
    """List real people with an oximeter beside.

    Args:
      source: a folder in UBFC-rPPG's layout; none: nobody.
    """
    if not source.is_dir():
        return
    for recording in ubfc_rppg.recordings(source):
        if isinstance(recording, Broken):
            raise UserError(recording.why)
        ppg = recording.ppg
        yield Clip(
            recording.recording_id, recording.person_id, "people", recording.file, ppg.times_s, ppg.values, {}
        )


def heads(source: Path, people: Sequence[str] | None) -> Iterator[Clip]:
    """Make the talking heads with a known pulse, or find those that were made.

    Args:
      source: a folder with the clips `talk_*.mp4`; none: nobody.
      people: names of the heads that are wanted; None: all.
    """
    for clip in sorted(source.glob("talk_*.mp4")):
        if people and clip.stem not in people:
            continue
        for recipe in talking_heads.recipes(clip.stem, SEED):
            name = f"{clip.stem}, {recipe.name}"
            file = KEPT / f"{clip.stem}-{recipe.name}-{recipe.seed}.mp4"
            times_s, ppg = talking_heads.make(clip, recipe, file)
            yield Clip(name, clip.stem, "heads", file, times_s, ppg, dataclasses.asdict(recipe))


def region_setting(region: str | None) -> dict[str, str]:
    """Return the setting of `sspd_jax.read` that chooses what is read of a face.

    Args:
      region: a name in `REGIONS`; None leaves it to the product.

    Raises:
      ConfigError: this version of the package has no such choice.
    """
    if region is None:
        return {}
    known = {field.name for field in dataclasses.fields(windows.Settings)}
    known |= set(inspect.signature(sspd_jax.read).parameters)
    if "region" in known:
        return {"region": region}
    if region == "crop":
        return {}  # nothing else is read
    raise ConfigError(f"--region={region}: this version reads the crop only; leave it out")


def product(*, smoothed: bool = False, **options: Any) -> Adapter:
    """Return what reads a clip as the product does.

    Args:
      smoothed: take the rate that goes on from window to window, and where there is one as given.
      **options: of `sspd_jax.read`: the method, the network, the region.
    """

    def read(clip: Clip) -> list[Reading]:
        try:
            found = sspd_jax.read(clip.file, window_s=WINDOW_S, stride_s=STRIDE_S, **options).windows
        except ConfigError:
            raise
        except UserError as error:  # no face, say: no rate in any window
            print(error, file=sys.stderr)
            found = ()
        readings = []
        for due_s in clip.starts_s():
            window = min(found, key=lambda w, due_s=due_s: abs(w.start_s - due_s), default=None)
            far = window is None or abs(window.start_s - due_s) > NEAR_S
            if far or window.duration_s < WINDOW_S - NEAR_S:
                readings.append(Reading(due_s, clip.true_bpm(due_s), None, None, False))
                continue
            given = window.heart_rate_bpm is not None
            bpm, true_bpm = window.candidate_bpm, clip.true_bpm(window.start_s)
            if smoothed:
                given, bpm = window.smoothed_bpm is not None, window.smoothed_bpm or bpm
            readings.append(Reading(window.start_s, true_bpm, bpm, window.confidence, given))
        return readings

    return read


def adapters(args: argparse.Namespace, folder: Path) -> dict[str, Adapter]:
    """Return every method of the package and every network, name → what reads a clip.

    Args:
      args: of the command.
      folder: in which the published weights may be unpacked.
    """
    region = region_setting(args.region)
    reads_skin = args.region != "crop"
    # The network that ships with the package reads skin alone.
    found = {m: product(method=m, **region) for m in methods.METHODS if m != "sspd" or reads_skin}
    if reads_skin:
        found["auto, smoothed"] = product(smoothed=True, **region)
        found["auto, no network"] = product(network=False, **region)
    networks = {f"network {SHIPPED.name}": SHIPPED}
    if args.weights.exists() and (args.methods is None or PUBLISHED in args.methods):
        networks[PUBLISHED] = folder / "published"
        convert(args.weights, networks[PUBLISHED])
    networks |= {f"network {Path(path).name}": Path(path) for path in args.network}
    for name, path in networks.items():
        if args.methods is None or name in args.methods:
            found[name] = product(method="sspd", checkpoint=sspd_jax.load(str(path)), **region)
        else:
            found[name] = _not_asked
    return found


def _not_asked(clip: Clip) -> list[Reading]:
    raise ValueError(f"{clip.name} is not read by a network that was not loaded")


class Results:
    """Everything that was read so far, kept in a file after every step."""

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool):
        """Begin anew, or with what is in the file.

        Args:
          path: of the JSON file.
          settings: what must be the same for results to stand beside each other.
          resume: whether to go on with what the file holds.

        Raises:
          UserError: the file holds results of other settings.
        """
        self.path = path
        self.table: dict[str, Any] = {"settings": dict(settings), "clips": {}, "readings": {}, "not_run": {}}
        if resume and path.exists():
            kept = json.loads(path.read_text())
            if kept["settings"] != self.table["settings"]:
                raise UserError(
                    f"{path}: holds results of other settings ({kept['settings']}); leave out --resume, or "
                    "give another --output"
                )
            self.table = kept

    def has(self, method: str, clip: Clip) -> bool:
        """Return whether a method has read a clip."""
        return clip.name in self.table["readings"].get(method, {})

    def keep(self, method: str, clip: Clip, readings: Sequence[Reading], seconds: float) -> None:
        """Keep what a method read in a clip, and how long it took, s."""
        made = {"person": clip.person, "group": clip.group, "made": dict(clip.made)}
        self.table["clips"][clip.name] = made
        rows = [[_rounded(value) for value in dataclasses.astuple(reading)] for reading in readings]
        by_clip = self.table["readings"].setdefault(method, {})
        by_clip[clip.name] = {"seconds": round(seconds, 2), "windows": rows}
        self.table["not_run"].pop(method, None)
        self.write()

    def write(self) -> None:
        """Write the file, a line for each method and clip."""
        table = self.table
        parts = [f'"settings": {json.dumps(table["settings"])}', f'"not_run": {json.dumps(table["not_run"])}']
        clips = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(table["clips"].items()))
        parts.append(f'"clips": {{\n{clips}\n}}')
        methods = []
        for method, by_clip in table["readings"].items():
            lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(by_clip.items()))
            methods.append(f"{json.dumps(method)}: {{\n{lines}\n}}")
        parts.append('"readings": {\n' + ",\n".join(methods) + "\n}")
        storage.write_text(self.path, "{\n" + ",\n".join(parts) + "\n}\n")


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def read_rival(name: str, python: Path, clips: Sequence[Clip], results: Results) -> None:
    """Read clips by open-rppg, in a process of its own Python, and keep what it says.

    Args:
      name: in `RIVALS`.
      python: that has open-rppg.
      clips: those that are left.
      results: where they are kept, clip by clip.

    Raises:
      UserError: the process fails.
    """
    script = Path(__file__).with_name("open_rppg.py")
    by_name = {clip.name: clip for clip in clips}
    asked = [
        {"clip": clip.name, "file": str(clip.file), "starts_s": clip.starts_s(), "window_s": WINDOW_S}
        for clip in clips
    ]
    with tempfile.TemporaryFile("w+") as questions, tempfile.TemporaryFile("w+") as complaints:
        questions.write("".join(json.dumps(line) + "\n" for line in asked))
        questions.seek(0)
        command = [str(python), str(script), f"--model={RIVALS[name]}"]
        try:
            process = subprocess.Popen(
                command, stdin=questions, stdout=subprocess.PIPE, stderr=complaints, text=True
            )
        except OSError as error:
            raise UserError(f"{python}: cannot be run ({error.strerror.lower()})") from error
        for line in process.stdout:
            answer = json.loads(line)
            clip = by_name[answer["clip"]]
            readings = [
                Reading(start_s, clip.true_bpm(start_s), bpm, quality, None)
                for start_s, (bpm, quality) in zip(clip.starts_s(), answer["windows"], strict=True)
            ]
            results.keep(name, clip, readings, answer["seconds"])
            _tell(name, clip, readings, answer["seconds"])
        if process.wait():
            complaints.seek(0)
            said = complaints.read().strip().splitlines()
            raise UserError(f"{python}: open-rppg failed ({said[-1] if said else process.returncode})")


def _tell(method: str, clip: Clip, readings: Sequence[Reading], seconds: float) -> None:
    right = sum(abs((r.bpm or np.inf) - r.true_bpm) <= RIGHT_BPM for r in readings)
    print(f"{clip.name}: {method} {right} of {len(readings)} right ({seconds:.0f} s)", flush=True)


def rows_of(table: Mapping[str, Any], method: str, group: str) -> tuple[list[Reading], list[str]]:
    """Return what a method read of a group, and whose each window is."""
    readings, people = [], []
    for name, found in sorted(table["readings"].get(method, {}).items()):
        if table["clips"][name]["group"] == group:
            readings += [Reading(*row) for row in found["windows"]]
            people += [table["clips"][name]["person"]] * len(found["windows"])
    return readings, people


def _share(right: np.ndarray, people: Sequence[str]) -> str:
    score = metrics.score_mean(right.astype(np.float64), people)
    interval = f" ({100 * score.low:.0f}–{100 * score.high:.0f})" if np.isfinite(score.low) else ""
    return f"{100 * score.value:.0f}{interval}"


def line(table: Mapping[str, Any], method: str, group: str) -> str | None:
    """Return a method's row of the table in Markdown, None where it has read nothing of the group."""
    readings, people = rows_of(table, method, group)
    if not readings:
        return None
    bpm = np.array([np.nan if r.bpm is None else r.bpm for r in readings])
    true = np.array([r.true_bpm for r in readings])
    off = np.where(np.isfinite(bpm), np.abs(bpm - true), np.inf)
    mae = metrics.score_rates(bpm, true, people)["MAE"]
    interval = f" ({mae.low:.1f}–{mae.high:.1f})" if np.isfinite(mae.low) else ""
    if any(r.given is None for r in readings):
        given, right = "all", "–"
    else:
        given = sum(r.given for r in readings)
        right = sum(r.given and error <= RIGHT_BPM for r, error in zip(readings, off, strict=True))
    sure = np.array([-1.0 if r.confidence is None else r.confidence for r in readings])
    surest = np.argsort(-sure, kind="stable")[: (len(sure) + 1) // 2]
    clips = table["readings"][method].items()
    seconds = [found["seconds"] for name, found in clips if table["clips"][name]["group"] == group]
    there = [name for name, clip in table["clips"].items() if clip["group"] == group]
    unread = sum(name not in table["readings"][method] for name in there)
    cells = (
        f"{method} (not finished: {len(there) - unread} of {len(there)} videos)" if unread else method,
        len(readings),
        _share(off <= RIGHT_BPM, people),
        _share(off <= NEARLY_BPM, people),
        f"{mae.value:.1f}{interval}",
        np.isnan(bpm).sum(),
        given,
        right,
        f"{100 * np.mean(off[surest] <= RIGHT_BPM):.0f}",
        f"{np.median(seconds):.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def by_person(table: Mapping[str, Any], group: str) -> list[str]:
    """Return a table of the right windows of every person and method in Markdown."""
    methods = [method for method in table["readings"] if rows_of(table, method, group)[0]]
    people = sorted({clip["person"] for clip in table["clips"].values() if clip["group"] == group})
    lines = ["| | " + " | ".join(people) + " |", "|---" * (len(people) + 1) + "|"]
    for method in methods:
        right: dict[str, list[bool]] = {person: [] for person in people}
        for reading, person in zip(*rows_of(table, method, group), strict=True):
            right[person].append(abs((reading.bpm or np.inf) - reading.true_bpm) <= RIGHT_BPM)
        counts = (f"{sum(r)} of {len(r)}" if r else "" for r in right.values())
        lines.append(f"| {method} | " + " | ".join(counts) + " |")
    return lines


def report(table: Mapping[str, Any]) -> str:
    """Write the tables in Markdown."""
    settings = table["settings"]
    seconds = sum(found["seconds"] for by_clip in table["readings"].values() for found in by_clip.values())
    region = settings["region"] or "what the package reads unless told otherwise"
    lines = [
        "# Real people and real talking heads",
        "",
        f"`python benchmarks/accuracy/real_people.py`, region: {region}. Windows of {WINDOW_S:g} s, one "
        f"every {STRIDE_S:g} s, nothing refused; right: within {RIGHT_BPM:g} bpm of the truth, which is the "
        "spectral peak of the pulse in the same window. In brackets the 95 % bootstrap interval over people. "
        "A window without any rate (no rate) is not right and has no part in the MAE. 'Given' is what would "
        "be given with the package's own confidence; open-rppg gives everything. The surest half are the "
        "windows in which a method's own confidence (of open-rppg its signal quality) is highest. Reading "
        f"took {seconds / 60:.0f} minutes in all, decoding included.",
        "",
    ]
    for group, title in GROUPS.items():
        people = {clip["person"] for clip in table["clips"].values() if clip["group"] == group}
        if not people:
            lines += [f"## {title}", "", "Not run: no such recordings were at hand.", ""]
            continue
        lines += [
            f"## {title} ({len(people)})",
            "",
            "| method | windows | within 3 bpm, % | within 5 bpm, % | MAE, bpm | no rate | given | "
            "of these, right | right in the surest half, % | s a clip |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [row for method in table["readings"] if (row := line(table, method, group))]
        lines += [f"| {name} | not run: {why} | | | | | | | | |" for name, why in table["not_run"].items()]
        lines += ["", "Right windows, person by person:", "", *by_person(table, group), ""]
    lines += [
        "## How to read it",
        "",
        "- The real people are those of UBFC-rPPG's DATASET_2 that were at hand, as H.264 of about a hundred "
        "kbit/s, a tenth of what a browser records. The published weights learned from UBFC-rPPG, perhaps "
        "from these very people: their row is no test.",
        "- The talking heads are real clips, played to and fro to "
        f"{talking_heads.SECONDS:g} s, with a pulse of a known rate in the colour of blood on what has the "
        "colour of skin. Each is there twice: 'drawn' (55–120 bpm, 0.6–0.8 %, crf 20–26, by its name) and "
        "'fixed' (96 bpm, 0.8 %, crf 23). A head's own pulse, where one was found "
        f"({', '.join(sorted(talking_heads.OWN_PULSE_BPM))}), is taken out first. One of them, talk_d11, is "
        "a photograph that was animated by a machine.",
        "- Few people: methods whose intervals overlap may well differ; look at them person by person.",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Read what is left, and write the tables."""
    parser = argparse.ArgumentParser(
        "benchmarks/accuracy/real_people.py",
        description=__doc__.partition("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--people", nargs="+", metavar="NAME", help="only these, such as subject3 talk_d10")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these rows of the table")
    parser.add_argument(
        "--region", choices=REGIONS, help="what is read of a face, where the package has a choice"
    )
    parser.add_argument("--output", type=Path, default=REPORT, help="the page; its JSON lies beside it")
    parser.add_argument("--resume", action="store_true", help="keep what was read, go on with what is left")
    parser.add_argument("--again", action="store_true", help="with --resume: read anew what is asked for")
    parser.add_argument("--source", type=Path, default=PEOPLE, help="people in UBFC-rPPG's layout")
    parser.add_argument("--heads", type=Path, default=HEADS, help="folder of the clips talk_*.mp4")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the authors' published weights")
    parser.add_argument("--network", nargs="*", default=[], metavar="DIR", help="other networks to read with")
    parser.add_argument("--rival_python", type=Path, help="a Python that has open-rppg")
    args = parser.parse_args(argv)

    def work():
        with tempfile.TemporaryDirectory() as folder:
            measure(args, Path(folder))
        print(args.output.read_text())

    return run(work, debug=True)


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Read every clip by every method that is asked for, and write the page after each clip.

    Args:
      args: of the command.
      folder: for what is needed during the run.

    Raises:
      UserError: an unknown person or method, nobody to read, or what a part says.
    """
    args.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {"window_s": WINDOW_S, "stride_s": STRIDE_S, "seed": SEED, "region": args.region}
    results = Results(args.output.with_suffix(".json"), settings, args.resume)
    known = adapters(args, folder)
    for name in args.methods or ():
        if name not in known and name not in RIVALS:
            raise ConfigError(f"method {name!r} is none of {', '.join([*known, *RIVALS])}")
    methods = [name for name in known if args.methods is None or name in args.methods]
    rivals = [name for name in RIVALS if args.methods is None or name in args.methods]

    def left(name: str, clip: Clip) -> bool:
        return args.again or not results.has(name, clip)

    clips = []
    for clip in itertools.chain(real_people(args.source), heads(args.heads, args.people)):
        if args.people and clip.person not in args.people:
            continue
        clips.append(clip)
        for name in methods:
            if left(name, clip):
                began = time.monotonic()
                readings = known[name](clip)
                seconds = time.monotonic() - began
                results.keep(name, clip, readings, seconds)
                _tell(name, clip, readings, seconds)
        storage.write_text(args.output, report(results.table))
    if not clips:
        raise UserError(
            f"{args.source}, {args.heads}: nobody to read; give --source or --heads, or other --people"
        )
    for name in rivals:
        todo = [clip for clip in clips if left(name, clip)]
        if args.rival_python is None:
            if name not in results.table["readings"]:
                results.table["not_run"][name] = "no --rival_python was given"
        elif todo:
            read_rival(name, args.rival_python, todo, results)
        results.write()
        storage.write_text(args.output, report(results.table))


if __name__ == "__main__":
    sys.exit(main())
