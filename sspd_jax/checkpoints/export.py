"""Write a trained network for use elsewhere: small, without this package, or in PyTorch.

`sspd_jax.cli.export` says what the formats are for.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from etils import epath

from sspd_jax.checkpoints import (
    host_network,
    onnx_file,
    portable_graph,
    tflite_file,
    torch_names,
    torch_writer,
)
from sspd_jax.checkpoints import network as checkpoints
from sspd_jax.checkpoints.host_network import HostModel
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.method import architecture, views
from sspd_jax.method.layers.conv3d import FORM_ELSEWHERE, FORM_ON_CPU
from sspd_jax.method.network import infer_wave
from sspd_jax.method.settings import NetworkSettings, network_settings
from sspd_jax.runtime import storage
from sspd_jax.video.crop import BOX

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where a StableHLO file runs."""

WINDOWS = (
    "join exactly where they start at even frames, overlap by twice the halo, and each drops halo samples at "
    "its edges; not at the recording's own beginning and end"
)
"""How a long recording is read by parts."""

LICENCE = "Apache-2.0"
"""Of the network that ships with the package: that of the repository."""

_ELSEWHERE = "choose another output"
_KEPT_CONFIG = ("network", "fps", "crop_size", "face_crop", "source", "licence")
_INFERENCE = ("backbone", "predictor")

_TS_VARIANT = ("ts_heads", "ts_attention_scale", "ts_projection", "ts_residual")
_SIZES = ("input_size", "stages", "features", "predictor_width")


class Network(NamedTuple):
    """A network out of a checkpoint."""

    config: Mapping[str, Any]
    settings: NetworkSettings
    params: Mapping[str, Any]
    batch_stats: Mapping[str, Any]

    def for_inference(self) -> Network:
        """Leave out what only training uses: the temporal-similarity (TS) blocks."""
        params, batch_stats = (
            {part: tree[part] for part in _INFERENCE} for tree in (self.params, self.batch_stats)
        )
        return self._replace(params=params, batch_stats=batch_stats)

    @property
    def n_parameters(self) -> int:
        """Number of parameters, statistics not counted."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))


class Exported(NamedTuple):
    """What was written.

    Attributes:
      n_parameters: Number of parameters in the file or directory.
      notes: What a user of it must know, a sentence each.
    """

    n_parameters: int
    notes: tuple[str, ...]


def export(
    checkpoint: epath.PathLike | None,
    output: epath.PathLike,
    format: str,
    *,
    form: str = "clip",
    licence: str | None = None,
) -> Exported:
    """Write a checkpoint's network in another format.

    Args:
      checkpoint: A directory that `sspd_jax.checkpoints.convert` or a training wrote; None for the network
        that ships with the package, in a portable format.
      output: The directory ('orbax') or file to make; must not exist yet. 'stablehlo' writes a description,
        `<output>.json`, beside it.
      format: A name in `FORMATS` or `PORTABLE`.
      form: Of a portable format: 'clip' reads a whole clip, 'stream' a block of frames and what is remembered
        of those before; see `portable_graph.build`.
      licence: Of a portable format: the terms that the network may be used under, for the file's metadata; by
        default what the checkpoint's config says.

    Returns:
      What was written.

    Raises:
      ConfigError: The format or the form is unknown, does not go with the other arguments, or needs a package
        that is not installed.
      UserError: The checkpoint is missing, damaged or of another kind; or the output exists or cannot be
        written.
    """
    known = (*FORMATS, *PORTABLE)
    if format not in known:
        raise ConfigError(f"format {format!r} is unknown; it must be one of {', '.join(known)}")
    if form not in portable_graph.FORMS:
        raise ConfigError(f"form {form!r} is unknown; it must be one of {', '.join(portable_graph.FORMS)}")
    if format not in PORTABLE:
        for name, is_given in {
            "form 'stream'": form != "clip",
            "a licence": licence is not None,
            "no checkpoint": checkpoint is None,
        }.items():
            if is_given:
                raise ConfigError(
                    f"format {format!r} does not go with {name}; give another format ({', '.join(PORTABLE)})"
                )
    output = epath.Path(output)
    _refuse_existing(output)
    if format in PORTABLE:
        return _write_portable(format, form, checkpoint, output, licence)
    network = _load(checkpoint)
    with storage.storing(output, _ELSEWHERE):
        output.parent.mkdir(parents=True, exist_ok=True)
    return FORMATS[format](network, output)


def lower(network: Network) -> jax.export.Exported:
    """Lower a network's inference to StableHLO, its parameters as constants within.

    Args:
      network: Any network; a `conv` of 'auto' becomes both forms, of which the file runs the one that suits
        the platform; another form is kept everywhere.

    Returns:
      For `PLATFORMS`: uint8 [t + 1, s, s, 3] RGB face crops → float32 [t], any even t ≥ 2, s the
      checkpoint's crop size.
    """
    side = int(network.config["crop_size"])
    trees = jax.tree.map(np.asarray, (network.params, network.batch_stats))

    def wave_by(conv: str) -> Callable[..., jax.Array]:
        settings = dataclasses.replace(network.settings, conv=conv)

        def wave(frames: jax.Array, params: Any, batch_stats: Any) -> jax.Array:
            video = views.whole_view(frames[None], settings.input_size, settings.input_transform)
            return infer_wave(settings, params, batch_stats, video)[0]

        return wave

    def wave(frames: jax.Array) -> jax.Array:
        if network.settings.conv != "auto":
            return wave_by(network.settings.conv)(frames, *trees)
        # The trees as operands: closed over, each platform's code would hold its own copy.
        return jax.lax.platform_dependent(
            frames, *trees, cpu=wave_by(FORM_ON_CPU), default=wave_by(FORM_ELSEWHERE)
        )

    (pairs,) = jax.export.symbolic_shape("pairs", constraints=["pairs >= 1"])  # of differences: t is even
    frames = jax.ShapeDtypeStruct((2 * pairs + 1, side, side, 3), jnp.uint8)
    return jax.export.export(jax.jit(wave), platforms=PLATFORMS)(frames)


def _load(directory: epath.PathLike) -> Network:
    config, params, batch_stats = checkpoints.load_network(directory)
    for key in ("fps", "crop_size"):
        value = config.get(key)
        if not isinstance(value, int | float) or not value > 0:
            raise UserError(
                f"{directory}: its config says {key} {value!r}, no number above 0; {checkpoints.MAKE_ONE}"
            )
    return Network(config, network_settings(config), params, batch_stats)


def _write_orbax(network: Network, output: epath.Path) -> Exported:
    network = network.for_inference()
    config = {key: network.config[key] for key in _KEPT_CONFIG if key in network.config}
    checkpoints.save_network(output, config, network.params, network.batch_stats)
    return Exported(network.n_parameters, ())


def _write_stablehlo(network: Network, output: epath.Path) -> Exported:
    network = network.for_inference()
    description = output.parent / f"{output.name}.json"
    _refuse_existing(description)
    lowered = lower(network)
    data = bytes(lowered.serialize())  # which takes a while: a kill hardly meets the two writes
    storage.write_text(description, json.dumps(_describe(network, lowered), indent=2), otherwise=_ELSEWHERE)
    try:
        storage.write_bytes(output, data, otherwise=_ELSEWHERE)
    except BaseException:
        description.unlink(missing_ok=True)
        raise
    return Exported(network.n_parameters, (f"described in {description}",))


def _describe(network: Network, lowered: jax.export.Exported) -> dict[str, Any]:
    """Say, for `<output>.json`, what a StableHLO file takes and gives."""
    side = int(network.config["crop_size"])
    about = _about(network)
    return {
        "format": "jax.export",
        "written_with_jax": jax.__version__,  # it runs with this version and newer ones
        "calling_convention_version": lowered.calling_convention_version,
        "platforms": list(lowered.platforms),
        **{key: about[key] for key in ("parameters", "fps", "crop_size", "face_crop")},
        "input": {
            "dtype": "uint8",
            "shape": ["t + 1", side, side, 3],
            "axes": "time, height, width, colour",
            "colours": "RGB",
            "meaning": "face crops, fps of them a second; t is even, at least 2",
        },
        "output": {
            "dtype": "float32",
            "shape": ["t"],
            "meaning": "pulse wave; sample i lies between frames i and i + 1; sign and phase mean nothing",
        },
        "halo": network.settings.receptive_halo,
        "windows": WINDOWS,
        **({"source": network.config["source"]} if "source" in network.config else {}),
    }


def _about(network: Network) -> dict[str, Any]:
    config = network.config
    return {
        "parameters": network.n_parameters,
        "fps": float(config["fps"]),
        "crop_size": int(config["crop_size"]),
        "face_crop": config.get("face_crop", BOX),
    }


def _write_portable(
    format: str, form: str, checkpoint: epath.PathLike | None, output: epath.Path, licence: str | None
) -> Exported:
    model, transform, about, notes = _shipped() if checkpoint is None else _of_checkpoint(checkpoint)
    about["licence"] = licence or about.get("licence") or "not stated; ask who trained it"
    about["halo"] = architecture.halo(model.layers)
    if form == "clip":
        about["windows"] = WINDOWS
    else:
        about["lag"] = architecture.lag(model.layers)
    about |= {"form": form, "input_transform": transform}
    data = PORTABLE[format](model, transform, form, about)
    with storage.storing(output, _ELSEWHERE):
        output.parent.mkdir(parents=True, exist_ok=True)
    storage.write_bytes(output, data, otherwise=_ELSEWHERE)
    return Exported(about["parameters"], notes)


def _shipped() -> tuple[HostModel, str, dict[str, Any], tuple[str, ...]]:
    model = host_network.shipped()
    about = {
        "parameters": sum(array.size for array in model.arrays.values()),
        "fps": model.fps,
        "crop_size": model.crop_size,
        "face_crop": model.face_crop,
        "source": model.name,
        "licence": LICENCE,
    }
    return model, "difference", about, ()


def _of_checkpoint(
    checkpoint: epath.PathLike,
) -> tuple[HostModel, str, dict[str, Any], tuple[str, ...]]:
    network = _load(checkpoint).for_inference()
    about = _about(network)
    about |= {key: network.config[key] for key in ("source", "licence") if key in network.config}
    settings = network.settings
    model = HostModel(
        layers=settings.layers,
        arrays=host_network.folded(network.params, network.batch_stats),
        input_size=settings.input_size,
        fps=about["fps"],
        crop_size=about["crop_size"],
        face_crop=about["face_crop"],
        name=str(checkpoint),
    )
    notes = ()
    if settings.dtype != "float32":
        notes = (f"it computes in float32 where the checkpoint does in {settings.dtype}",)
    return model, settings.input_transform, about, notes


def _write_pytorch(network: Network, output: epath.Path) -> Exported:
    released = NetworkSettings()
    notes = []
    if "ts" in network.params:
        differ = [name for name in _TS_VARIANT if _differ(network.settings, released, name)]
        if set(network.settings.ts_strides) != {1}:
            differ.append("ts_strides")
        if differ:
            network = network.for_inference()
            notes.append(
                "without the temporal-similarity blocks, which compute something else in the published "
                f"network ({', '.join(differ)} differ) and are not needed to read a wave"
            )
    sizes = (*_SIZES, "ts_kernels") if "ts" in network.params else _SIZES
    if differ := [name for name in sizes if _differ(network.settings, released, name)]:
        notes.append(f"not of the published network's sizes ({', '.join(differ)} differ)")
    if network.settings.input_transform != released.input_transform:
        notes.append(
            f"to be given {network.settings.input_transform!r} (network.input_transform, see "
            "sspd_jax.method.input_transform) where the published code gives a network frame differences"
        )
    state_dict = torch_names.to_torch(network.params, network.batch_stats)
    torch_writer.write_state_dict(output, state_dict, otherwise=_ELSEWHERE)
    return Exported(network.n_parameters, tuple(notes))


def _differ(a: NetworkSettings, b: NetworkSettings, name: str) -> bool:
    return getattr(a, name) != getattr(b, name)


def _refuse_existing(path: epath.Path) -> None:
    with storage.storing(path, _ELSEWHERE):
        if path.exists():
            raise UserError(f"{path}: exists already; delete it or {_ELSEWHERE}")


FORMATS: Mapping[str, Callable[[Network, epath.Path], Exported]] = {
    "orbax": _write_orbax,
    "stablehlo": _write_stablehlo,
    "pytorch": _write_pytorch,
}

PORTABLE: Mapping[str, Callable[[HostModel, str, str, Mapping[str, Any]], bytes]] = {
    "onnx": onnx_file.serialize,
    "tflite": tflite_file.serialize,
}
"""Formats for phones and browsers; the package reads them no more."""
