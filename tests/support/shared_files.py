"""Files that belong to others: tested against where they are, never shipped."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL_FACE = _SHARED / "real" / "face.mp4"
REAL_PEOPLE = _SHARED / "real" / "ubfc_crf23"
TALKING = _SHARED / "real" / "clips"
FINGERS = _SHARED / "real" / "welltory"
PUBLISHED_WEIGHTS = _SHARED / "reference" / "ubfc.pth"


def needs(path: Path):
    """Skip a test, with the reason, where a file is absent."""
    return pytest.mark.skipif(
        not path.exists(), reason=f"{path.name} is not here: it belongs to others and is not shipped"
    )
