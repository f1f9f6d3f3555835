"""Videos and labels out of MATLAB files: version 5 through SciPy, version 7.3 (HDF5) through h5py.

A video in a 7.3 file is read in slabs of frames. SciPy reads a variable of a version 5 file whole, because
MATLAB stores the time axis of [t, h, w, 3] innermost: such a video must fit into memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from sspd_jax.datasets.readers import files
from sspd_jax.datasets.recording import Ppg
from sspd_jax.errors import UserError

SLAB_BYTES = 48 << 20
UNIT_RANGE = 1.5  # a floating-point picture that nowhere exceeds this is 0 … 1, else 0 … 255
# Damage shows as whatever the two readers make of the bytes.
DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, MemoryError)
DAMAGE = (*DAMAGE, scipy.io.matlab.MatReadError)


class MatFile:
    """A MATLAB file of either version; arrays have MATLAB's order of axes."""

    def __init__(self, path: Path):
        """Look into a file.

        Args:
          path: Path of a .mat file.

        Raises:
          UserError: It is missing or damaged.
        """
        self.path = path
        if not path.exists():
            raise UserError(f"{path}: missing; {files.COPY_IT}")
        try:
            self._is_hdf5 = h5py.is_hdf5(path)
            if self._is_hdf5:
                with h5py.File(path, "r") as file:
                    self.shapes = {
                        name: tuple(item.shape[::-1])
                        for name, item in file.items()
                        if isinstance(item, h5py.Dataset)
                    }
            else:
                self.shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        except DAMAGE as error:
            raise self._damaged(error) from error

    def value(self, name: str) -> Any:
        """Read a small variable.

        Returns:
          A string for a char array, else a NumPy array.

        Raises:
          UserError: There is no variable of this name, or it is damaged.
        """
        self._require(name)
        try:
            if self._is_hdf5:
                with h5py.File(self.path, "r") as file:
                    data = file[name][()]
                    if file[name].attrs.get("MATLAB_class") == b"char":
                        return "".join(chr(code) for code in np.ravel(data))
                    return np.asarray(data).T
            value = scipy.io.loadmat(self.path, variable_names=[name])[name]
        except DAMAGE as error:
            raise self._damaged(error) from error
        return str(value.item()) if value.dtype.kind == "U" and value.size == 1 else value

    def wave(self, name: str) -> np.ndarray:
        """Read a row or column of numbers, float64 [m].

        Raises:
          UserError: It is no row of numbers, or see `value`.
        """
        value = np.asarray(self.value(name))
        if value.dtype.kind not in "iufb" or value.size != max(value.shape, default=0):
            raise UserError(f"{self.path}: {name} is no row of numbers; {files.COPY_IT}")
        return value.ravel().astype(np.float64)

    def video_shape(self, name: str) -> tuple[int, int, int, int]:
        """Return a video's (t, h, w, 3) without reading it.

        Raises:
          UserError: There is no variable of this name, or it is no video.
        """
        self._require(name)
        shape = self.shapes[name]
        if len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
            raise UserError(f"{self.path}: {name} is {list(shape)}, not [t, h, w, 3]; {files.COPY_IT}")
        return shape

    def frames(self, name: str) -> Iterator[np.ndarray]:
        """Read a video picture by picture.

        Args:
          name: Name of a variable [t, h, w, 3] RGB, integers, or floating point of 0 … 1 or of 0 … 255.

        Yields:
          uint8 [h, w, 3].

        Raises:
          UserError: It is no video, is damaged, or holds values that are not finite.
        """
        self.video_shape(name)
        scale = None
        for slab in self._slabs(name):
            if slab.dtype.kind == "f":
                if not np.isfinite(slab).all():
                    raise UserError(f"{self.path}: {name} holds values that are not finite; {files.COPY_IT}")
                if scale is None:
                    scale = 255.0 if slab.max() <= UNIT_RANGE else 1.0
                for picture in slab:  # one at a time: a slab in float64 would be many times as large
                    yield np.clip(np.rint(picture * scale), 0, 255).astype(np.uint8)
            else:
                for picture in slab:
                    yield np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))

    def clip(
        self, video: str, wave: str, hz: float, notes: list[str] | None = None
    ) -> tuple[Callable[[], Iterator[tuple[float, np.ndarray]]], Ppg]:
        """Check a video and the contact pulse wave beside it, and return both.

        Args:
          video: Name of the video.
          wave: Name of the wave.
          hz: Rate of both, Hz.
          notes: To which a sentence on missing values is added; None where none may be missing.

        Returns:
          `Recording.frames` and `Recording.ppg`.

        Raises:
          UserError: One of them is missing or damaged, or they are not about equally long.
        """
        n_frames = self.video_shape(video)[0]
        values = self.wave(wave)
        ppg = files.check_ppg(self.path, files.evenly(values, hz), values, where=wave, notes=notes)
        files.check_span(self.path, len(values) / hz, self.path, n_frames / hz)
        return functools.partial(self._timed_frames, video, hz), ppg

    def _timed_frames(self, video: str, hz: float) -> Iterator[tuple[float, np.ndarray]]:
        for number, picture in enumerate(self.frames(video)):
            yield number / hz, picture

    def _slabs(self, name: str) -> Iterator[np.ndarray]:
        """Yield [n, h, w, 3], n as memory allows."""
        try:
            if not self._is_hdf5:
                yield scipy.io.loadmat(self.path, variable_names=[name])[name]
                return
            with h5py.File(self.path, "r") as file:
                data = file[name]  # [3, w, h, t]
                length = slab_length(data)
                for start in range(0, data.shape[3], length):
                    yield data[:, :, :, start : start + length].transpose(3, 2, 1, 0)
        except DAMAGE as error:
            raise self._damaged(error) from error

    def _require(self, name: str) -> None:
        if name not in self.shapes:
            known = ", ".join(sorted(self.shapes)[:8]) or "nothing"
            raise UserError(f"{self.path}: holds no {name} (but {known}); {files.COPY_IT}")

    def _damaged(self, error: Exception) -> UserError:
        text = " ".join(str(error).split())[:120] or type(error).__name__
        return UserError(f"{self.path}: cannot be read as a MATLAB file ({text}); {files.COPY_IT}")


def slab_length(data: h5py.Dataset) -> int:
    """Return how many frames of a [3, w, h, t] video to read at once.

    As many as `SLAB_BYTES` hold, in whole chunks of the file where those are smaller: a chunk that is
    touched is decompressed whole.
    """
    fit = max(1, SLAB_BYTES // (int(np.prod(data.shape[:3])) * data.dtype.itemsize))
    chunk = data.chunks[3] if data.chunks else 1
    return min(data.shape[3], fit // chunk * chunk if fit >= chunk else fit)
