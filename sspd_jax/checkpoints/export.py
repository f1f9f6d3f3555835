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

from sspd_jax.checkpoints import network as checkpoints
from sspd_jax.checkpoints import torch_names, torch_writer
from sspd_jax.errors import ConfigError, UserError
from sspd_jax.method import views
from sspd_jax.method.layers.conv3d import FORM_ELSEWHERE, FORM_ON_CPU
from sspd_jax.method.network import infer_wave
from sspd_jax.method.settings import NetworkSettings, network_settings
from sspd_jax.runtime import storage
from sspd_jax.video.crop import BOX

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where a StableHLO file runs."""

_ELSEWHERE = "choose another output"
_KEPT_CONFIG = ("network", "fps", "crop_size", "face_crop", "source")
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


def export(checkpoint: epath.PathLike, output: epath.PathLike, format: str) -> Exported:
    """Write a checkpoint's network in another format.

    Args:
      checkpoint: A directory that `sspd_jax.checkpoints.convert` or a training wrote.
      output: The directory ('orbax') or file to make; must not exist yet. 'stablehlo' writes a description,
        `<output>.json`, beside it.
      format: 'orbax', 'stablehlo' or 'pytorch'.

    Returns:
      What was written.

    Raises:
      ConfigError: The format is unknown.
      UserError: The checkpoint is missing, damaged or of another kind; or the output exists or cannot be
        written.
    """
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} is unknown; it must be one of {', '.join(FORMATS)}")
    output = epath.Path(output)
    _refuse_existing(output)
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
    storage.write_text(description, json.dumps(_describe(network, lowered), indent=2), otherwise=_ELSEWHERE)
    try:
        storage.write_bytes(output, bytes(lowered.serialize()), otherwise=_ELSEWHERE)
    except BaseException:
        description.unlink(missing_ok=True)
        raise
    return Exported(network.n_parameters, (f"described in {description}",))


def _describe(network: Network, lowered: jax.export.Exported) -> dict[str, Any]:
    """Say, for `<output>.json`, what a StableHLO file takes and gives."""
    side = int(network.config["crop_size"])
    return {
        "format": "jax.export",
        "written_with_jax": jax.__version__,  # it runs with this version and newer ones
        "calling_convention_version": lowered.calling_convention_version,
        "platforms": list(lowered.platforms),
        "parameters": network.n_parameters,
        "fps": float(network.config["fps"]),
        "crop_size": side,
        "face_crop": network.config.get("face_crop", BOX),
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
        "windows": "join exactly where they start at even frames, overlap by twice the halo, and each drops "
        "halo samples at its edges; not at the recording's own beginning and end",
        **({"source": network.config["source"]} if "source" in network.config else {}),
    }


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
