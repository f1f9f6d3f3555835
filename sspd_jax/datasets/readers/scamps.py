"""Read SCAMPS: 2,800 rendered clips of 20 s, each of another invented person.

Layout: `P000001.mat` …, MATLAB 7.3 (HDF5), in one folder or in folders of the source: `RawFrames` and
`Xsub`, floating-point [t, h, w, 3] (as HDF5 has it: [3, w, h, t]), and `d_ppg`, the wave that drove the
rendering; both at 30 Hz. `RawFrames` is read where it is there: `Xsub` is small for a face detector.

References:
  McDuff, Wander, Liu, Hill, Hernandez, Lester & Baltrušaitis, "SCAMPS", NeurIPS 2022.
"""

from __future__ import annotations

import collections
import re
from pathlib import Path

from sspd_jax.datasets.readers import files, matlab
from sspd_jax.datasets.recording import Broken, Recording
from sspd_jax.errors import UserError

HZ = 30.0
VIDEOS, TRUTH = ("RawFrames", "Xsub"), "d_ppg"
CLIP = re.compile(r"P\d+\.mat")
GET_IT = (
    "download SCAMPS (https://github.com/danmcduff/scampsdataset) and give the folder that holds "
    "P000001.mat, P000002.mat, …"
)


def recordings(source: str | Path) -> list[Recording | Broken]:
    """List the clips of SCAMPS.

    Args:
      source: Folder that holds P000001.mat, …, or folders of them.

    Returns:
      One per file; each is a person of its own.

    Raises:
      UserError: The folder is missing or holds no clip.
    """
    source = files.find_folder(source, GET_IT)
    clips = sorted(
        path
        for folder in [source, *(p for p in source.iterdir() if p.is_dir())]
        for path in folder.glob("P*.mat")
        if CLIP.fullmatch(path.name)
    )
    if not clips:
        raise UserError(f"{source}: holds no P000001.mat; {GET_IT}")
    names = collections.Counter(path.stem for path in clips)
    if max(names.values()) > 1:
        twice = names.most_common(1)[0][0]
        raise UserError(f"{source}: holds {twice}.mat twice; give the folder of one copy")
    return files.list_each(((path.stem, path) for path in clips), _recording)


def _recording(recording_id: str, path: Path) -> Recording:
    file = matlab.MatFile(path)
    video = next((name for name in VIDEOS if name in file.shapes), VIDEOS[0])
    notes: list[str] = []
    frames, ppg = file.clip(video, TRUTH, HZ, notes)
    return Recording(
        recording_id=recording_id,
        person_id=recording_id,
        frames=frames,
        ppg=ppg,
        file=path,
        meta={"dataset": "SCAMPS", "video": video} | ({"notes": notes} if notes else {}),
    )
