"""The clips that the confidence of skin is fitted and measured on, and the evidence of their windows.

    python benchmarks/confidence/skin_clips.py --jobs=2       # hours; killed and started again, it goes on

Six sorts, a row of skin_confidence.csv for every window and method:

- *frozen*: one frame of a real face in which something that is no pulse beats, or a pulse does, by
  `cases/pulse_free.py`: nods, sway, zoom, lights, screens, flicker; besides these, the track of a talking
  head replayed on the frame, and pulses together with a nod or a light;
- *moving*: real clips with a pulse put in, by `cases/repulse.py`; *net* are those of the heads that the
  network has not learned from;
- *footage*: real clips without a pulse, by `sspd_jax simulate --from --pulse_free`, all of its kinds;
- *real*: people with an oximeter, UBFC-rPPG compressed, `real/ubfc_crf23`, and `real/face.mp4`, whose
  pulse is 52.8 bpm by every reader;
- *simulated*: `clips.py`'s kinds, and the sample video;
- *people*: people of the part `fit` of `sspd_jax simulate --preset`, each in three presets and one of them
  again without a pulse.

The real footage lies beside the repository, in ../shared, and belongs to others: rows are kept here, pictures
are not. H.264 of random quality, strengths and rates drawn by seed.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import importlib.util
import io
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from fractions import Fraction
from pathlib import Path

import av
import clips
import cv2
import numpy as np
import tqdm

from sspd_jax.checkpoints import host_network
from sspd_jax.cli import common
from sspd_jax.heart_rate import confidence, skin_evidence
from sspd_jax.heart_rate.rate import spectral_peak_rate
from sspd_jax.heart_rate.skin_evidence import SkinEvidence, SkinWindow
from sspd_jax.heart_rate.wave import Wave
from sspd_jax.inference import skin_reading, skin_segment
from sspd_jax.runtime import storage
from sspd_jax.simulation import footage_recordings, sample_video
from sspd_jax.simulation.people import film, looks, recordings
from sspd_jax.simulation.people.presets import PRESETS
from sspd_jax.simulation.pulse_free import KINDS
from sspd_jax.video import decode
from sspd_jax.video.face_mesh import load_networks
from sspd_jax.video.skin_traces import SkinRecorder, SkinTraces, as_table, as_traces, skin_traces

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
ROWS = HERE / "skin_confidence.csv"
TRACES = HERE.parents[1] / "workdir" / "skin_confidence"
FPS, SECONDS, WINDOW_S = 30.0, 11.0, 10.0
LONG_SIDE = 640  # pixels of a moving clip
CRF_FROZEN, CRF_MOVING = (16, 18, 21, 23, 26), (17, 20, 23, 26, 28)
STREAMS = {"frozen": 11, "moving": 12}  # of random numbers
SAMPLES = (  # bpm, frames/s, codec
    *((72, 30, "libx264"), (84, 30, "libx264"), (60, 30, "libx264"), (96, 15, "libx264")),
    *((72, 25, "mjpeg"), (54, 30, "libx264"), (110, 30, "libx264"), (72, 24, "libx264")),
    (66, 60, "libx264"),
)
MIXED = ("replay", "replay_light", "control_nod", "control_light")
FOOTAGE = ("face", "webcam_2", "subject5", "talk_s29")  # in which `simulate --pulse_free` makes its kinds
LEARNED_FROM = (  # by the network that travels with the package, see benchmarks/network
    *("face", "speech_2", "speech_5", "talk_d10", "talk_d18", "talk_d3", "talk_s29", "webcam_2"),
)
SORTS = ("frozen", "moving", "footage", "real", "simulated", "people")
UPRIGHT = (480, 854)  # pixels, of what telephones film: as messengers pass it on
OWN_BPM = 52.8  # of real/face.mp4
NO_PULSE = "talk_d11"  # a photograph that a machine animated


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip to be made: its sort, its kind, whose face, and the number of the draw."""

    sort: str
    kind: str
    person: str
    number: int

    @property
    def path(self) -> Path:
        """Where its traces are kept."""
        kind = self.kind.replace(" ", "_").replace(",", "").replace("×", "x")
        return TRACES / f"{self.sort}-{self.person}-{kind}-{self.number}.npz"

    def rng(self) -> np.random.Generator:
        """Draw what is random in it from its own name."""
        name = hashlib.md5(f"{self.person}{self.kind}".encode()).hexdigest()
        return np.random.default_rng([self.number + int(name[:6], 16), STREAMS[self.sort]])


@dataclasses.dataclass(frozen=True)
class Row:
    """One window of one clip, read by one method."""

    sort: str
    kind: str
    person: str
    number: int
    method: str
    start_s: float
    kbit_s: float
    true_bpm: float  # NaN of what has no pulse
    bpm: float
    evidence: SkinEvidence

    @property
    def right(self) -> bool:
        """Whether the rate is within 3 bpm of the truth; of what has no pulse, none is."""
        return abs(self.bpm - self.true_bpm) <= confidence.WITHIN_BPM


def case(name: str):
    """Load one of the makers of clips that lie beside the repository."""
    spec = importlib.util.spec_from_file_location(name, SHARED / "cases" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faces() -> dict[str, Path]:
    """Name → video of every real face of which frames are frozen or pulses put in."""
    real = SHARED / "real"
    files = [real / "face.mp4", *sorted((real / "webcam").glob("*.mp4"))]
    files += sorted(path for path in (real / "clips").glob("*.mp4") if "cartoon" not in path.stem)
    return {path.stem: path for path in files}


def listed(frozen: int, moving: int, simulated: int, people: int) -> list[Clip]:
    """List the clips to make: so many draws of every kind and face."""
    kinds = [*case("pulse_free").clips(_portrait(), 1.2, 1.0, np.random.default_rng(0)), *MIXED]
    found = [Clip("frozen", kind, person, n) for n in range(frozen) for person in faces() for kind in kinds]
    found += [
        Clip("moving", "repulse", person, n)
        for n in (number + 5 * (number // 5) for number in range(moving))
        for person in faces()
        if person != NO_PULSE
    ]
    found += [
        Clip("moving", "net", person, 200 + n)
        for n in range(min(moving, 3))
        for person in sorted(faces().keys() - {NO_PULSE} - set(LEARNED_FROM))
    ]
    found += [Clip("footage", kind, person, 0) for person in FOOTAGE for kind in KINDS]
    found += [Clip("real", "own", "face", 0)]
    found += [Clip("real", "ubfc", path.name, 0) for path in sorted((SHARED / "real/ubfc_crf23").iterdir())]
    found += [
        Clip("simulated", kind, f"{seed}", number)
        for number in range(1, simulated + 1)
        for kind in clips.KINDS
        for seed in clips.FITTED
    ]
    found += [Clip("simulated", "sample", "portrait", number) for number in range(len(SAMPLES))]
    for place, number in enumerate(looks.people_of("fit", people)):
        names = [list(PRESETS)[(3 * place + k) % len(PRESETS)] for k in range(3)]
        twin = film.PULSE_FREE[place % len(film.PULSE_FREE)]
        found += [Clip("people", kind, f"person {number}", 0) for kind in (*names, f"{names[1]}, {twin}")]
    return found


def _portrait() -> np.ndarray:
    return sample_video.read_portrait()[0]


def record(clip: Clip) -> None:
    """Make a clip, record its skin and keep the traces."""
    makers = {
        "frozen": _frozen,
        "moving": _moving,
        "footage": _footage,
        "simulated": _simulated,
        "people": _people,
    }
    with tempfile.TemporaryDirectory() as folder:
        if clip.kind == "own":
            path, times_s = faces()[clip.person], np.arange(round(SECONDS * FPS)) / FPS
            truth = {"pulse": np.sin(2 * np.pi * OWN_BPM / 60 * times_s), "pulse_s": times_s}
        elif clip.sort == "real":
            folder = SHARED / "real/ubfc_crf23" / clip.person
            path = next(folder.glob("vid.*"))
            lines = (folder / "ground_truth.txt").read_text().splitlines()
            pulse, _, times_s = (np.array(line.split(), float) for line in lines[:3])
            truth = {"pulse": pulse, "pulse_s": times_s - times_s[0]}
        else:
            path = Path(folder) / "clip.mp4"
            truth = makers[clip.sort](clip, path)
            path = next(Path(folder).rglob("*.webm"), path)
        networks, sentence = load_networks()
        if sentence:
            raise SystemExit(sentence)
        recorder = SkinRecorder(networks, crop_size=host_network.shipped().crop_size)
        crops = list(recorder.crops_beside(recorder.watch(decode.frames(path))))
        traces = recorder.traces()
        kbit_s = 8 * path.stat().st_size / max(traces.time_s[-1], 1) / 1000
    data = io.BytesIO()
    seen = {"crops_s": np.array([t for t, _ in crops]), "crops": np.array([c for _, c in crops], np.uint8)}
    np.savez_compressed(data, table=as_table(traces), kbit_s=kbit_s, **seen, **truth)
    storage.write_bytes(clip.path, data.getvalue())


def _frozen(clip: Clip, path: Path) -> dict[str, np.ndarray]:
    pulse_free, rng = case("pulse_free"), clip.rng()
    hz, scale = rng.uniform(0.75, 2.3), float(np.exp(rng.uniform(np.log(0.35), np.log(1.6))))
    crf, background = int(rng.choice(CRF_FROZEN)), str(rng.choice(["own", "still"]))
    frame = pulse_free.first_frame(faces()[clip.person], background, rng)
    made = pulse_free.clips(frame, hz, scale, rng)
    picture = made[clip.kind] if clip.kind in made else _mixed(clip, frame, made, hz, scale, rng)
    pulse_free.write(path, picture, rng, FPS, SECONDS, crf)
    if not clip.kind.startswith("control"):
        return {}
    times_s = np.arange(round(SECONDS * FPS)) / FPS
    # What `control_pulse` puts in: its rate breathes.
    return {
        "pulse_s": times_s,
        "pulse": np.sin(2 * np.pi * hz * times_s + 0.5 * np.sin(2 * np.pi * 0.22 * times_s)),
    }


def _mixed(clip: Clip, frame: np.ndarray, made: dict, hz: float, scale: float, rng) -> Callable:
    other_hz = rng.uniform(0.75, 2.3)
    while abs(other_hz - hz) < 0.25:
        other_hz = rng.uniform(0.75, 2.3)
    strength = scale * rng.uniform(0.15, 0.5)
    height, width = frame.shape[:2]
    if clip.kind == "control_nod":

        def nodding(t: float, i: int) -> np.ndarray:
            shift = np.float32([[1, 0, 0], [0, 1, 3 * strength * np.sin(2 * np.pi * other_hz * t)]])
            return cv2.warpAffine(
                made["control_pulse"](t, i), shift, (width, height), borderMode=cv2.BORDER_REFLECT
            )

        return nodding
    if clip.kind == "control_light":
        return lambda t, i: (
            made["control_pulse"](t, i) * np.float32(1 + 0.02 * strength * np.sin(2 * np.pi * other_hz * t))
        )
    talking = [name for name in faces() if name.startswith("talk") and name != clip.person]
    track = _track(str(rng.choice(talking)))
    gain, size = rng.uniform(0.4, 1.2), height / 8
    off = (track - track.mean(0)) * gain
    tint = np.float32([0.8, 1, 1.1]) * (0.01 * scale if clip.kind == "replay_light" else 0)

    def replayed(t: float, i: int) -> np.ndarray:
        x, y, growth, turn = off[min(i % (2 * len(off) - 1), 2 * len(off) - 2 - i % (2 * len(off) - 1))]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -np.degrees(turn), float(np.exp(growth)))
        matrix[:, 2] += x * size, y * size
        moved = cv2.warpAffine(
            frame.astype(np.float32), matrix, (width, height), borderMode=cv2.BORDER_REFLECT
        )
        return moved * (1 + tint * np.float32(np.sin(2 * np.pi * hz * t)))

    return replayed


def _track(person: str) -> np.ndarray:
    """Follow a talking head: [t, 4] at 30 Hz, shift in units of its spread, log of its size, turn."""
    kept = TRACES / f"track-{person}.npy"
    if not kept.exists():
        seen = skin_traces(decode.frames(faces()[person]), load_networks()[0])
        part = max(skin_segment.on_clock(seen, FPS), key=lambda part: len(part.time_s))
        track = skin_evidence.track(part.geometry, part.residual, part.pose)[:, :4]
        data = io.BytesIO()
        np.save(data, track)
        storage.write_bytes(kept, data.getvalue())
    return np.load(kept)


def _moving(clip: Clip, path: Path) -> dict[str, np.ndarray]:
    repulse, rng = case("repulse"), clip.rng()
    bpm, strength = rng.uniform(50, 130), float(np.exp(rng.uniform(np.log(0.003), np.log(0.012))))
    with av.open(str(faces()[clip.person])) as source:
        fps = float(source.streams.video[0].average_rate)
        frames = [_even(f.to_ndarray(format="rgb24")) for f, _ in zip(source.decode(video=0), range(330))]  # noqa: B905
    count = round(SECONDS * fps)
    there_and_back = np.resize([*range(len(frames)), *range(len(frames) - 2, 0, -1)], count)
    times_s = np.arange(count) / fps
    pulse, _ = repulse.pulse(bpm, times_s, rng)

    def pictures() -> Iterator[np.ndarray]:
        for number, now in zip(there_and_back, pulse, strict=True):
            frame = frames[number]
            ycc = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)
            skin = (ycc[..., 1] > 135) & (ycc[..., 1] < 180) & (ycc[..., 2] > 85) & (ycc[..., 2] < 135)
            skin = cv2.GaussianBlur(skin.astype(np.float32), (0, 0), 4)[..., None]
            seen = frame * (1 - strength * now * skin * repulse.BLOOD)
            seen += 0.5 * rng.standard_normal(frame.shape, np.float32)
            yield np.clip(np.rint(seen), 0, 255).astype(np.uint8)

    _encode(path, pictures(), fps, int(rng.choice(CRF_MOVING)))
    return {"pulse_s": times_s, "pulse": pulse}


def _footage(clip: Clip, path: Path) -> dict[str, np.ndarray]:
    person = SHARED / "real/ubfc_crf23" / clip.person
    source = next(person.glob("vid.*")) if person.is_dir() else faces()[clip.person]
    with tempfile.TemporaryDirectory() as folder:
        (made,) = footage_recordings.write_footage_recordings(
            folder, [source], kinds=[clip.kind], seconds=SECONDS, seed=1 + clip.number, workers=1
        )
        path.write_bytes(next(Path(made).glob("vid.*")).read_bytes())
    return {}


def _even(picture: np.ndarray) -> np.ndarray:
    share = min(1, LONG_SIDE / max(picture.shape[:2]))
    if share < 1:
        picture = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    return np.ascontiguousarray(picture[:height, :width])


def _encode(path: Path, pictures: Iterator[np.ndarray], fps: float, crf: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf), "preset": "veryfast"}
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _simulated(clip: Clip, path: Path) -> dict[str, np.ndarray]:
    if clip.kind == "sample":
        bpm, fps, codec = SAMPLES[clip.number]
        path = path.with_suffix(".avi") if codec == "mjpeg" else path
        sample_video.write_face_video(path, seconds=SECONDS, fps=fps, bpm=bpm, seed=clip.number, codec=codec)
        path.rename(path.with_suffix(".mp4"))
        times_s = np.arange(round(SECONDS * FPS)) / FPS
        return {"pulse_s": times_s, "pulse": sample_video.ppg(times_s, bpm)}
    clips.SECONDS = SECONDS
    kind = clips.KINDS[clip.kind]
    times_s, pulse = clips.film(path, kind, int(clip.person), clip.number)
    return {"pulse_s": times_s, "pulse": pulse} if kind.alive else {}


def _people(clip: Clip, path: Path) -> dict[str, np.ndarray]:
    preset, _, twin = clip.kind.partition(", ")
    upright = PRESETS[preset].scene.size[1] > PRESETS[preset].scene.size[0]
    folder = path.parent / "person"
    recordings.write_people_recording(
        folder,
        number=1,
        films=[(int(clip.person.split()[1]), twin or None)],
        preset=preset,
        seconds=SECONDS,
        seed=1 + clip.number,
        size=UPRIGHT if upright else PRESETS[preset].scene.size,
        encoding=None,
    )
    made = next(folder.glob("vid.*"))
    made.rename(path.with_suffix(made.suffix))
    pulse, _, times_s = np.loadtxt(folder / "ground_truth.txt")
    return {} if twin else {"pulse": pulse, "pulse_s": times_s}


def weigh(clip: Clip) -> list[Row]:
    """Collect the evidence of a clip's windows, for the fused rate and for each estimator's."""
    with np.load(clip.path) as kept:
        traces, kbit_s = as_traces(kept["table"]), float(kept["kbit_s"])
        truth = (kept["pulse_s"], kept["pulse"]) if "pulse" in kept else None
        crops = list(zip(kept["crops_s"], kept["crops"], strict=True))
    learned = host_network.read(host_network.shipped(), crops, FPS)
    rows: list[Row] = []
    for part in skin_segment.on_clock(traces, FPS):
        rows += _weigh_part(clip, part, truth, kbit_s, learned)
    return rows


def _weigh_part(
    clip: Clip, part: SkinTraces, truth: tuple | None, kbit_s: float, learned: list[Wave]
) -> list[Row]:
    rows: list[Row] = []
    length, samples = round(WINDOW_S * FPS), len(part.time_s)
    if samples < 0.93 * length:
        return rows
    segment = skin_segment.read_waves(part, FPS, skin_reading.AUTO, learned)
    spare = max(0, samples - length)
    for start in range(0, spare + 1, round(5 * FPS)) if clip.sort == "real" else (spare // 2,):
        window = segment.window(start, min(start + length, samples))
        times_s = part.time_s[start] + np.arange(len(window.skin)) / FPS
        true_bpm = float("nan")
        if truth is not None:
            if truth[0][-1] < times_s[-1] - 0.3:
                continue
            true_bpm = spectral_peak_rate(np.interp(times_s, *truth), FPS)
        for method, (bpm, evidence) in _read(window).items():
            rows.append(
                Row(*dataclasses.astuple(clip), method, float(times_s[0]), kbit_s, true_bpm, bpm, evidence)
            )
    return rows


def _read(window: SkinWindow) -> dict[str, tuple[float, SkinEvidence]]:
    fused = skin_evidence.fuse(window)
    found = {}
    for method, bpm in {"auto": fused.bpm, **fused.rates_bpm}.items():
        if np.isfinite(bpm) and method != "sspd":
            wave = window.waves[skin_evidence.clearest(window, bpm) if method == "auto" else method]
            found[method] = bpm, skin_evidence.extract(window, wave, bpm, fused)
    return found


def write_rows(rows: list[Row]) -> None:
    """Write what was found of every window."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Row)][:-1]
    writer.writerow([*names, *(field.name for field in dataclasses.fields(SkinEvidence))])
    for row in rows:
        numbers = (row.start_s, row.kbit_s, row.true_bpm, row.bpm, *dataclasses.astuple(row.evidence))
        writer.writerow(
            [row.sort, row.kind, row.person, row.number, row.method, *(f"{n:.5g}" for n in numbers)]
        )
    storage.write_text(ROWS, text.getvalue())


def read_rows() -> list[Row]:
    """Read what `write_rows` wrote."""
    names = [field.name for field in dataclasses.fields(SkinEvidence)]
    with ROWS.open(newline="") as file:
        return [
            Row(
                *(line["sort"], line["kind"], line["person"], int(line["number"]), line["method"]),
                *(float(line[name]) for name in ("start_s", "kbit_s", "true_bpm", "bpm")),
                SkinEvidence(*(float(line.get(name) or "nan") for name in names)),
            )
            for line in csv.DictReader(file)
        ]


def main(argv: list[str] | None = None) -> int:
    """Make the clips that are not made yet, and write the rows of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frozen", type=int, default=1, help="draws of every kind and face (default: 1)")
    parser.add_argument("--moving", type=int, default=10, help="draws of every face (default: 10)")
    parser.add_argument("--simulated", type=int, default=4, help="people of every kind (default: 4)")
    parser.add_argument("--people", type=int, default=18, help="people of presets (default: 18)")
    parser.add_argument("--sorts", nargs="+", default=SORTS, choices=SORTS, help="to make (default: all)")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args(argv)

    def work() -> None:
        wanted = listed(args.frozen, args.moving, args.simulated, args.people)
        wanted = [clip for clip in wanted if clip.sort in args.sorts]
        TRACES.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
            todo = {pool.submit(record, clip): clip for clip in wanted if not clip.path.exists()}
            for done in tqdm.tqdm(as_completed(todo), "clips", len(todo), mininterval=10):
                if error := done.exception():
                    print(f"{todo[done]}: {error}", file=sys.stderr)
        made = [clip for clip in wanted if clip.path.exists()]
        # What was found in clips whose traces are not at hand stays.
        known = {dataclasses.astuple(clip) for clip in made}
        kept = [row for row in read_rows() if (row.sort, row.kind, row.person, row.number) not in known]
        write_rows(kept + [row for clip in made for row in weigh(clip)])

    return common.run(work, debug=True)


if __name__ == "__main__":
    sys.exit(main())
