"""A picture per recording."""

import cv2
import dataset_files
import numpy as np
import pytest
from prepared_faces import portrait, recording

from sspd_jax.cli import inspect as cli_inspect
from sspd_jax.datasets import inspect
from sspd_jax.datasets.readers import registry
from sspd_jax.heart_rate.rate import spectral_peak_rate


def test_an_overview_has_what_is_drawn(tmp_path):
    dataset_files.folder(tmp_path, seconds=8)
    (first, _) = registry.read("folder", tmp_path)
    overview = inspect.make_overview(first)
    assert overview.colours.shape == (240, 3) and len(overview.times_s) == 240
    assert [round(t) for t, _, _ in overview.thumbs] == [0, 4, 7]
    assert [bpm for _, _, bpm in overview.true_bpm] == pytest.approx([72], abs=2)
    assert [bpm for _, _, bpm in overview.video_bpm] == pytest.approx([72], abs=4)
    # The skin is where the face is, and beats.
    assert overview.skin.found.all() and len(overview.skin.time_s) == 240
    assert spectral_peak_rate(overview.skin.skin[:, 1], 30) == pytest.approx(72, abs=2)
    assert list(overview.maps) == [t for t, _, _ in overview.thumbs]
    box = overview.box
    for there in overview.maps.values():
        rows, columns = np.nonzero(there > 0.5)
        assert there.shape == (112, 112) and 0.05 < len(rows) / 112**2 < 0.5
        assert box.left <= columns.min() and columns.max() < box.right
        assert box.top <= rows.min() and rows.max() < box.bottom
        assert abs(np.mean(columns) - (box.left + box.right) / 2) < 12


@pytest.mark.slow
def test_long_and_broken_up_recordings_stay_small():
    times_s = np.r_[np.arange(100) / 5, 30 + np.arange(50) / 5]
    overview = inspect.make_overview(recording("a", times_s))
    assert [round(t) for t, _, _ in overview.thumbs] == [0, 14, 38]
    starts = [start for start, _, _ in overview.video_bpm]
    assert all(start < 19.8 or start >= 30 for start in starts)
    thumbs = []
    for _ in inspect._keeping(portrait(np.arange(400) / 2), thumbs):
        assert len(thumbs) <= 16


def test_the_command_draws_every_recording(tmp_path, capsys):
    dataset_files.folder(tmp_path / "raw", seconds=5)
    (tmp_path / "raw" / "b.mp4").write_bytes(b"")
    (tmp_path / "raw" / "Zoë" / "a clip.csv").unlink()
    out = tmp_path / "pictures"
    arguments = ["--dataset=folder", f"--source={tmp_path / 'raw'}", f"--output={out}"]
    assert cli_inspect.main(arguments) == 1
    said = capsys.readouterr()
    assert said.err == f"b: {tmp_path / 'raw' / 'b.mp4'}: the file is empty; " + (
        "record or copy it again, or move it out of the folder\n"
    )
    assert sorted(p.name for p in out.iterdir()) == ["Zoë-a_clip.png", "李-day_1-b.png"]
    assert said.out.splitlines() == [str(out / "Zoë-a_clip.png"), str(out / "李-day_1-b.png")]
    picture = cv2.imread(str(out / "李-day_1-b.png"))
    assert picture.shape == (900, 1100, 3)
    # The face's box is drawn in red, the skin's outline in green, the wave's rate in dark grey.
    for bgr in ((0, 94, 213), (115, 158, 0), (51, 51, 51)):
        assert (np.abs(picture.astype(int) - bgr).max(-1) < 8).sum() > 100
    assert cli_inspect.main([*arguments, "--recording", "nobody"]) == 2
    assert "--recording nobody is not in" in capsys.readouterr().err
