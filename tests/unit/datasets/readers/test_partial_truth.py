"""Truth that begins late, ends early or has holes: every reader takes it, and what it covers is scored."""

import itertools
import json

import dataset_files
import h5py
import numpy as np
import pytest
import scipy.io

from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import pure, registry, ubfc_rppg
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.evaluation import protocol, scoring

pytestmark = pytest.mark.usefixtures("quick_compilation")

SECONDS = 13
END_S = 12.5
WRITERS = sorted(dataset_files.WRITERS)
SLOW = (
    "cohface",
    "vipl_hr",
    "scamps",
    "ubfc_phys",
    "ubfc_rppg_1",
    "folder",
    "mmpd",
)  # of the same kinds as others
CASES = [pytest.param(name, 0.004, marks=pytest.mark.slow if name in SLOW else ()) for name in WRITERS]
CASES += [pytest.param(name, 2.0, marks=() if name == "ubfc_rppg" else pytest.mark.slow) for name in WRITERS]
FEWER = {"vipl_hr": {"sources": ("source1",)}}  # videos of a person: one is enough here


def there(times_s, start_s, end_s=END_S):
    return (np.asarray(times_s) >= start_s) & (np.asarray(times_s) <= end_s)


def spoil_ubfc_rppg(root, start_s):
    for path in root.rglob("ground_truth.txt"):
        wave, rate, times = (line.split() for line in path.read_text().splitlines())
        kept = there([float(t) for t in times], 0)
        wave = [v if float(t) >= start_s else "nan" for v, t in zip(wave, times, strict=True)]
        rows = [list(itertools.compress(row, kept)) for row in (wave, rate, times)]
        path.write_text("\n".join(map(" ".join, rows)) + "\n")


def spoil_ubfc_rppg_1(root, start_s):
    for path in root.rglob("gtdump.xmp"):
        rows = path.read_text().splitlines()
        kept = there([float(row.split(",")[0]) / 1000 for row in rows], start_s)
        path.write_text("\n".join(itertools.compress(rows, kept)) + "\n")


def spoil_pure(root, start_s):
    for path in root.rglob("*.json"):
        content = json.loads(path.read_text())
        first = content["/Image"][0]["Timestamp"]
        times = [(package["Timestamp"] - first) / 1e9 for package in content["/FullPackage"]]
        content["/FullPackage"] = list(itertools.compress(content["/FullPackage"], there(times, start_s)))
        path.write_text(json.dumps(content))


def holes(values, rate_hz, start_s):
    values = np.array(values, np.float64).ravel()
    times_s = np.arange(len(values)) / rate_hz
    values[times_s < start_s] = np.nan
    return values[times_s <= END_S]


def spoil_cohface(root, start_s):
    for path in root.rglob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            values = holes(file["pulse"], 256, start_s)
            times = file["time"][: len(values)]
            del file["pulse"], file["time"]
            file["pulse"], file["time"] = values, times


def spoil_mmpd(root, start_s):
    for path in root.rglob("*.mat"):
        content = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
        scipy.io.savemat(path, content | {"GT_ppg": holes(content["GT_ppg"], 30, start_s)})


def spoil_scamps(root, start_s):
    for path in root.rglob("*.mat"):
        with h5py.File(path, "r+") as file:
            values = holes(file["d_ppg"], 30, start_s)
            del file["d_ppg"]
            file["d_ppg"] = values.reshape(-1, 1)


def spoil_ubfc_phys(root, start_s):
    for path in root.rglob("*.csv"):
        dataset_files.column(path, holes(np.loadtxt(path), 64, start_s))


def spoil_vipl_hr(root, start_s):
    for path in root.rglob("wave.csv"):
        values = np.loadtxt(path, skiprows=1)  # it spans the video: only values can be missing
        times_s = np.arange(len(values)) / 60
        values[~there(times_s, start_s)] = np.nan
        dataset_files.column(path, values, "Wave")


def spoil_folder(root, start_s):
    for path in root.rglob("*.csv"):
        head, *rows = path.read_text().splitlines()
        kept = there([float(row.split(",")[0]) for row in rows], start_s)
        path.write_text("\n".join([head, *itertools.compress(rows, kept)]) + "\n")


@pytest.mark.parametrize(("name", "start_s"), CASES)
def test_every_protocol_scores_what_the_truth_covers_and_lists_the_rest(tmp_path, name, start_s):
    dataset_files.WRITERS[name](tmp_path / "raw", seconds=SECONDS, **FEWER.get(name, {}))
    globals()[f"spoil_{name}"](tmp_path / "raw", start_s)
    listed = registry.read(name, tmp_path / "raw")
    assert [r.why for r in listed if isinstance(r, Broken)] == []
    prepare(listed, tmp_path / "out", name=name, crop_size=16, skin=False, progress=False)
    dataset = open_prepared(tmp_path / "out")
    spans = {s.segment_id: s.truth[0] for s in dataset.segments}
    samples, by_hand = (
        list(scoring.read_segments(d, dataset.people, {}, ("pos",))) for d in (dataset, Cut(dataset, spans))
    )
    for protocol_name in protocol.names():
        p = protocol.load(protocol_name, **({"stride_s": 1.0} if protocol_name == "sinc" else {}))
        scored = scoring.score(samples, "pos", p, with_confidence=False)
        result = scored.result
        assert result["people"] == sorted(dataset.people), p.name
        copy = scoring.score(by_hand, "pos", p, with_confidence=False)
        assert len(scored.rows) == len(copy.rows) >= len(dataset.segments)
        for row, other in zip(scored.rows, copy.rows, strict=True):
            shift_s = spans[row.recording][0] / dataset.fps
            assert row.start_s == pytest.approx(other.start_s + shift_s)
            for key in ("duration_s", "true_bpm", "predicted_bpm", "snr_db", "macc"):
                np.testing.assert_allclose(getattr(row, key), getattr(other, key), err_msg=f"{p.name} {key}")
    for segment in dataset.segments:
        assert segment.truth[0][0] / 30 == pytest.approx(start_s, abs=0.06)
        assert segment.truth[0][1] / 30 == pytest.approx(END_S, abs=0.06)
        lost = [one for one in result["left_out"] if one["recording"] == segment.segment_id]
        assert bool([one for one in lost if one["start_s"] == 0]) == (segment.truth[0][0] > 0)
        # UBFC's text has the frames' times: frames beyond it are left out with it.
        assert name == "ubfc_rppg" or lost[-1]["end_s"] == pytest.approx(segment.n_frames / 30)
    assert any("no contact pulse wave at" in note for s in dataset.segments for note in s.notes)


class Cut:
    """Frames first to last of a prepared dataset's segments, as if the video had been cut there."""

    def __init__(self, dataset, spans):
        self._dataset, self.fps, self._spans = dataset, dataset.fps, spans
        self.segments = [s for s in dataset.segments if s.segment_id in spans]

    def ppg(self, segment):
        return self._dataset.ppg(segment)[slice(*self._spans[segment.segment_id])]

    def frames(self, segment):
        return itertools.islice(self._dataset.frames(segment), *self._spans[segment.segment_id])


def test_what_lies_beyond_the_truth_changes_no_wave(tmp_path):
    dataset_files.folder(tmp_path / "raw", seconds=SECONDS)
    spoil_folder(tmp_path / "raw", 2.0)
    prepare(
        registry.read("folder", tmp_path / "raw"), tmp_path / "out", crop_size=16, skin=False, progress=False
    )
    dataset = open_prepared(tmp_path / "out")
    spans = {s.segment_id: s.truth[0] for s in dataset.segments}
    both = (
        list(scoring.read_segments(d, dataset.people, {}, ("pos", "chrom")))
        for d in (dataset, Cut(dataset, spans))
    )
    for whole, cut in zip(*both, strict=True):
        first, last = spans[whole.segment.segment_id]
        assert len(cut.truth) == last - first < len(whole.truth)
        for method, wave in cut.waves.items():
            np.testing.assert_array_equal(scoring.part_of(whole.waves[method], first, last), wave.values)
        np.testing.assert_array_equal(whole.cells[first:last], cut.cells)


def test_the_empty_folder_of_pures_release_is_no_recording(tmp_path):
    dataset_files.pure(tmp_path, seconds=2)
    (tmp_path / "06-02" / "06-02").mkdir(parents=True)
    (tmp_path / "06-02" / ".DS_Store").touch()
    assert [r.recording_id for r in pure.recordings(tmp_path)] == ["01-01", "02-01"]
    (tmp_path / "06-02" / "06-02" / "Image1.png").write_bytes(b"a picture")
    assert isinstance(pure.recordings(tmp_path)[-1], Broken)


def test_a_text_with_fewer_lines_at_another_rate_is_still_refused(tmp_path):
    dataset_files.ubfc_rppg(tmp_path, seconds=4)
    path = tmp_path / "DATASET_2" / "subject1" / "ground_truth.txt"
    rows = [row.split() for row in path.read_text().splitlines()]
    path.write_text("\n".join(" ".join(row[::2]) for row in rows) + "\n")  # every second frame: 15 Hz
    first, second = ubfc_rppg.recordings(tmp_path)
    assert "has 120 frames where ground_truth.txt has 60 values" in first.why
    assert isinstance(second, Recording)
