"""Broken recordings of every kind: each is named in a sentence, and the others are prepared all the same."""

import json
import os
import shutil

import dataset_files
import h5py
import numpy as np
import pytest
import scipy.io

from sspd_jax.datasets import check
from sspd_jax.datasets.dataset import open_prepared
from sspd_jax.datasets.prepare import prepare
from sspd_jax.datasets.readers import registry
from sspd_jax.datasets.recording import Broken
from sspd_jax.errors import UserError


def cut(share):
    """Keep the first part of a file (a share of it, or a number of bytes)."""

    def do(path):
        data = path.read_bytes()
        path.write_bytes(data[: round(share * len(data)) if share < 1 else share])

    return do


def content(data):
    return lambda path: path.write_bytes(data.encode() if isinstance(data, str) else data)


def missing(path):
    path.unlink()


def emptied(path):
    for inner in path.iterdir():
        inner.unlink()


def gone(path):
    shutil.rmtree(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


def lines(change):
    """Change a text's lines."""

    def do(path):
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return do


def cells(change):
    """Change the cells of every row of a table."""
    return lines(lambda rows: [",".join(change(row.split(","))) for row in rows])


def copied(name):
    return lambda path: shutil.copy(path, path.with_name(name))


def table(change):
    """Change a JSON table."""

    def do(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return do


def without_first_value(rows):
    rest = rows[0].split()[1:]
    return [" ".join(["inf", *rest]), *rows[1:]]


def seconds_for_ns(content):
    for package in content["/FullPackage"]:
        package["Timestamp"] //= 1_000_000_000


def every_second(path):
    for picture in sorted(path.glob("*.png"))[::2]:
        picture.unlink()


def cut_pictures(path):
    for picture in sorted(path.glob("*.png"))[10:30]:
        picture.write_bytes(picture.read_bytes()[:2000])


def hdf5(change):
    def do(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return do


def put(name, value):
    def do(file):
        del file[name]
        file[name] = value

    return do


def mat(**changes):
    """Write a version 5 file anew; None leaves a variable out."""

    def do(path):
        old = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
        new = old | {k: v(old[k]) if callable(v) else v for k, v in changes.items()}
        scipy.io.savemat(path, {k: v for k, v in new.items() if v is not None})

    return do


def with_nan(values):
    values = np.array(values, np.float64)
    values[(0,) * (values.ndim - 1) + (7,) if values.ndim < 4 else (7, 0, 0, 0)] = np.nan
    return values


def with_inf(values):
    values = with_nan(values)
    values[np.isnan(values)] = np.inf
    return values


def link_to(target):
    def do(path):
        path.unlink()
        path.symlink_to(target)

    return do


VIDEO, TRUTH = "DATASET_2/subject1/vid.avi", "DATASET_2/subject1/ground_truth.txt"
FIRST, DUMP = "DATASET_1/5-gt", "DATASET_1/5-gt/gtdump.xmp"
AVI1 = f"{FIRST}/vid of 5.avi"
JSON, PICTURES = "01-01/01-01.json", "01-01/01-01"
AVI, HDF5 = "1/0/data.avi", "1/0/data.hdf5"
MAT = "subject1/p1_0.mat"
BVP, PHYS = "s1/bvp_s1_T1.csv", "s1/vid_s1_T1.avi"
VIPL = "data/p1/v1-2/source1"
CLIP = "P000001.mat"
MP4, CSV = "Zoë/a clip.mp4", "Zoë/a clip.csv"

CASES = [
    # dataset, what is broken, how, what is said of it
    ("ubfc_rppg", VIDEO, missing, "missing"),
    ("ubfc_rppg", VIDEO, content(b""), "the file is empty"),
    ("ubfc_rppg", VIDEO, cut(300), "not "),
    ("ubfc_rppg", VIDEO, cut(0.3), "frames where ground_truth.txt has 60 values"),
    ("ubfc_rppg", VIDEO, content("no video\n" * 99), "not a video"),
    ("ubfc_rppg", VIDEO, a_folder, "is a directory"),
    ("ubfc_rppg", TRUTH, missing, "missing"),
    ("ubfc_rppg", TRUTH, content(b""), "0 lines"),
    ("ubfc_rppg", TRUTH, cut(0.6), "2 lines of numbers where 3 are due"),
    ("ubfc_rppg", TRUTH, cut(0.9), "no number (could not convert"),
    ("ubfc_rppg", TRUTH, lines(lambda rows: rows[::-1]), "its times do not increase"),
    ("ubfc_rppg", TRUTH, lines(without_first_value), "value 1 of the PPG line is inf"),
    ("ubfc_rppg", TRUTH, lines(lambda rows: ["x" + rows[0][1:], *rows[1:]]), "no number"),
    ("ubfc_rppg", TRUTH, content(b"\xff\xfe\x00"), "cannot be read as text"),
    ("ubfc_rppg", TRUTH, a_folder, "cannot be read as text"),
    ("ubfc_rppg_1", AVI1, missing, "holds 0 .avi files where one is due"),
    ("ubfc_rppg_1", AVI1, copied("again.avi"), "holds 2 .avi files where one is due"),
    ("ubfc_rppg_1", AVI1, cut(0.5), "breaks off before its end"),
    ("ubfc_rppg_1", DUMP, missing, "missing"),
    ("ubfc_rppg_1", DUMP, content(b""), "has 0 values, too few"),
    ("ubfc_rppg_1", DUMP, cells(lambda row: row[:3]), "line 1 holds something that is no number"),
    ("ubfc_rppg_1", DUMP, cells(lambda row: row[::-1]), "the times of the PPG column do not increase"),
    ("ubfc_rppg_1", DUMP, cells(lambda row: [*row[:3], "nan"]), "value 1 of the PPG column is nan"),
    ("ubfc_rppg_1", DUMP, cells(lambda row: [str(float(row[0]) / 1e3), *row[1:]]), "its wave lasts 0.0 s"),
    ("ubfc_rppg_1", DUMP, cut(0.5), "one is cut off"),
    ("pure", JSON, missing, "missing"),
    ("pure", JSON, content(b""), "is damaged"),
    ("pure", JSON, cut(0.4), "is damaged"),
    ("pure", JSON, cut(0.999), "is damaged"),
    ("pure", JSON, table(lambda t: t.pop("/Image")), "lacks /Image[].Timestamp or"),
    ("pure", JSON, table(lambda t: t["/FullPackage"][9]["Value"].pop("waveform")), "lacks"),
    ("pure", JSON, table(lambda t: t["/FullPackage"].reverse()), "the times of waveform do not increase"),
    ("pure", JSON, table(lambda t: t["/FullPackage"][9]["Value"].update(waveform=float("inf"))), "is inf"),
    ("pure", JSON, table(seconds_for_ns), "s"),
    ("pure", JSON, table(lambda t: t.update({"/Image": t["/Image"][:40]})), "60 pictures where"),
    ("pure", PICTURES, emptied, "holds no .png picture"),
    ("pure", PICTURES, every_second, "30 pictures where 01-01.json has 60 timestamps"),
    ("pure", PICTURES, cut_pictures, "20 of 60 pictures are damaged"),
    ("cohface", HDF5, missing, "missing"),
    ("cohface", HDF5, content(b""), "cannot be read as HDF5"),
    ("cohface", HDF5, cut(100), "cannot be read as HDF5"),
    ("cohface", HDF5, cut(0.5), "cannot be read as HDF5"),
    ("cohface", HDF5, content("no data"), "cannot be read as HDF5"),
    ("cohface", HDF5, hdf5(lambda f: f.pop("pulse")), "lacks pulse, time or sample-rate-hz"),
    ("cohface", HDF5, hdf5(lambda f: f.attrs.pop("sample-rate-hz")), "lacks pulse, time or sample-rate-hz"),
    ("cohface", HDF5, hdf5(lambda f: f.attrs.update({"sample-rate-hz": 30.0})), "run at 256.0 Hz where"),
    ("cohface", HDF5, hdf5(lambda f: put("pulse", with_inf(f["pulse"]))(f)), "value 8 of pulse is inf"),
    ("cohface", HDF5, hdf5(put("pulse", [])), "pulse has 0 values at 512 times"),
    ("cohface", HDF5, hdf5(put("time", [])), "has 0 values at 256 Hz"),
    ("cohface", AVI, missing, "missing"),
    ("cohface", AVI, cut(0.5), "breaks off before its end"),
    ("mmpd", MAT, content(b""), "cannot be read as a MATLAB file"),
    ("mmpd", MAT, cut(100), "cannot be read as a MATLAB file"),
    ("mmpd", MAT, cut(0.5), "holds no GT_ppg (but video)"),
    ("mmpd", MAT, mat(video=None), "holds no video (but GT_ppg, "),
    ("mmpd", MAT, mat(GT_ppg=None), "holds no GT_ppg"),
    ("mmpd", MAT, mat(video=lambda v: v.transpose(3, 1, 2, 0)), "not [t, h, w, 3]"),
    ("mmpd", MAT, mat(video=lambda v: v[..., 0]), "video is [60, 112, 112], not [t, h, w, 3]"),
    ("mmpd", MAT, mat(video=with_nan), "video holds values that are not finite"),
    ("mmpd", MAT, mat(GT_ppg=with_inf), "value 8 of GT_ppg is inf"),
    ("mmpd", MAT, mat(GT_ppg=np.zeros((1, 128))), "its wave lasts 4.3 s"),
    ("mmpd", MAT, mat(GT_ppg="text"), "GT_ppg is no row of numbers"),
    ("ubfc_phys", BVP, missing, "missing"),
    ("ubfc_phys", BVP, content(b""), "has 0 values, too few"),
    ("ubfc_phys", BVP, content("time,bvp\n"), "line 1 holds something that is no number"),
    ("ubfc_phys", BVP, lines(lambda rows: rows[::2]), "its wave lasts 1.0 s and vid_s1_T1.avi 2.0 s"),
    ("ubfc_phys", BVP, lines(lambda rows: ["inf", *rows[1:]]), "value 1 of the wave is inf"),
    ("ubfc_phys", PHYS, missing, "missing"),
    ("ubfc_phys", PHYS, cut(0.7), "breaks off before its end"),
    ("vipl_hr", f"{VIPL}/wave.csv", missing, "missing"),
    ("vipl_hr", f"{VIPL}/wave.csv", lines(lambda rows: rows[1:]), "has no column Wave in its first line"),
    ("vipl_hr", f"{VIPL}/wave.csv", lines(lambda rows: rows[:9]), "Wave has 8 values, too few"),
    ("vipl_hr", f"{VIPL}/wave.csv", lines(lambda rows: ["Wave", "inf", *rows[2:]]), "is inf"),
    ("vipl_hr", f"{VIPL}/time.txt", missing, "missing"),
    ("vipl_hr", f"{VIPL}/time.txt", lines(lambda rows: rows[::-1]), "do not increase"),
    ("vipl_hr", f"{VIPL}/time.txt", lines(lambda rows: rows[:10]), "has 10 values, too few"),
    ("vipl_hr", f"{VIPL}/gt_HR.csv", content("BPM\n72\n"), "has no column HR"),
    ("vipl_hr", f"{VIPL}/video.avi", cut(0.2), "frames where time.txt has 50 values"),
    ("vipl_hr", "data/p1/v1-2/source2/video.avi", cut(0.5), "breaks off before its end"),
    ("scamps", CLIP, cut(0.5), "cannot be read as a MATLAB file"),
    ("scamps", CLIP, content("text"), "cannot be read as a MATLAB file"),
    ("scamps", CLIP, hdf5(lambda f: f.pop("d_ppg")), "holds no d_ppg"),
    ("scamps", CLIP, hdf5(lambda f: f.pop("RawFrames")), "holds no RawFrames"),
    ("scamps", CLIP, hdf5(put("RawFrames", np.zeros((60, 8, 8, 3)))), "not [t, h, w, 3]"),
    ("scamps", CLIP, hdf5(put("RawFrames", np.zeros((3, 64, 64, 60)))), "no face found"),
    ("folder", MP4, content(b""), "the file is empty"),
    ("folder", MP4, cut(0.5), "not "),
    ("folder", MP4, content("text"), "not a video"),
    ("folder", MP4, a_folder, None),
    ("folder", MP4, link_to("nowhere.mp4"), "no such file"),
    ("folder", MP4, link_to("a clip.mp4"), "symbolic links"),
    ("folder", "李/day 1/b.mkv", cut(0.5), "has no 1 s of unbroken video"),
    ("folder", CSV, content(b""), "has no column time_s"),
    ("folder", CSV, lines(lambda rows: rows[:40]), "its wave lasts 0.6 s, from 0.0 s on"),
    ("folder", CSV, lines(lambda rows: rows[1:]), "has no column time_s in its first line"),
    ("folder", CSV, lines(lambda rows: ["ppg,time_s", *rows[1:]]), "the times of ppg do not increase"),
    ("folder", CSV, lines(lambda rows: [rows[0], "0,inf", *rows[2:]]), "value 1 of ppg is inf"),
    ("folder", CSV, content(b"\xff\xfe\x00"), "cannot be read as text"),
    ("folder", CSV, cut(0.3), "a value is missing"),
]  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Two whole people of a dataset, 2 s each; written once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / name
            dataset_files.WRITERS[name](made[name], seconds=2)
        return made[name]

    return get


def test_there_are_enough():
    assert len(CASES) >= 60
    assert {name for name, *_ in CASES} == set(dataset_files.WRITERS)


@pytest.mark.parametrize(
    ("name", "path", "breaks", "said"),
    CASES,
    ids=[f"{n}-{number}" for number, (n, *_) in enumerate(CASES)],
)
def test_a_broken_recording_is_named_and_the_others_are_prepared(
    tmp_path, template, capsys, name, path, breaks, said
):
    shutil.copytree(template(name), tmp_path / "raw")
    whole = [r.recording_id for r in registry.read(name, tmp_path / "raw")]
    breaks(tmp_path / "raw" / path)
    listed = registry.read(name, tmp_path / "raw")
    if said is None:  # a folder of that name is no video
        assert len(listed) == 1
        return
    assert [r.recording_id for r in listed] == whole
    found = {
        f.recording_id: f.sentence for r in listed for f in check.check_recording(r) if f.kind == "broken"
    }
    ((broken, sentence),) = found.items()
    assert said in sentence
    assert "\n" not in sentence and "; " in sentence  # … and the remedy
    assert sentence.startswith(str(tmp_path / "raw"))
    left = prepare(listed, tmp_path / "out", crop_size=16, skin=False, progress=False, keep_going=True)
    assert left.left_out == {broken: sentence}
    assert capsys.readouterr().err == f"{broken}: {sentence}\n"
    there = {s.recording_id for s in open_prepared(tmp_path / "out").segments}
    assert there == set(whole) - {broken}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_what_may_not_be_read_is_named(tmp_path):
    dataset_files.folder(tmp_path, seconds=2)
    (tmp_path / "Zoë" / "a clip.mp4").chmod(0)
    (tmp_path / "李").chmod(0)
    listed = registry.read("folder", tmp_path)
    assert all(isinstance(r, Broken) and "permission denied" in r.why for r in listed) and len(listed) == 2


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    dataset_files.folder(tmp_path, seconds=2)
    original = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("李"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    first, second = registry.read("folder", tmp_path)
    assert not isinstance(first, Broken)
    assert second.why == (
        f"{tmp_path / '李'}: cannot be looked into (permission denied); make it readable, or move it"
    )


@pytest.mark.parametrize("name", sorted(dataset_files.WRITERS))
def test_what_is_no_dataset_says_where_to_get_one(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for source, said in (("nowhere", "no such folder"), ("file", "is a file"), ("empty", "holds no")):
        with pytest.raises(UserError, match=said) as caught:
            registry.read(name, tmp_path / source)
        assert str(caught.value).startswith(f"{tmp_path / source}: ") and "; " in str(caught.value)
