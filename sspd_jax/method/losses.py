"""The terms of SSPD's losses, and their weighted sum.

A term is a pure function `term(outputs, fps, **settings) -> float32 scalar` of what both networks infer.
A form of the method (paper, released, …) is a table `{name: {'weight': …, **settings}}` of terms in the
configuration; nothing here knows which form it serves. Which parameters a term can reach is decided by
the network (`param_labels` names them): waves come from the predictor behind a `stop_gradient`, similarities
from the backbone and the temporal-similarity blocks.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float32

from sspd_jax.method import self_similarity, spectrum
from sspd_jax.method.outputs import Outputs

_PEARSON_EPS = 1e-7
_NO_DEVIATION = 1e-10  # what a constant has


def pearson_distance(
    x: Float[ArrayLike, "*batch t"], y: Float[ArrayLike, "*batch t"]
) -> Float32[Array, "*batch"]:
    """Compute 1 − Pearson's correlation r over the last axis.

    It is computed as half the squared distance of the standardised signals: near agreement, where the losses
    live, the difference 1 − r would keep few of float32's digits.

    Args:
      x: Signals, float [..., t].
      y: As many signals of the same length.

    Returns:
      float32 [...] in [0, 2]; 1, with finite gradients, where either is constant.
    """
    x, x_deviation = standardise(x)
    y, y_deviation = standardise(y)
    product = x_deviation * y_deviation
    half_square = jnp.sum((x - y) ** 2, axis=-1) / (2 * (x.shape[-1] - 1))
    # A constant has no standardised square of 1 to give to the distance: half of each is missing.
    missing = ((_NO_DEVIATION / x_deviation) ** 2 + (_NO_DEVIATION / y_deviation) ** 2) / 2
    # r·p / (p + ε), as released, is 1 minus this.
    return (product * (half_square + missing) + _PEARSON_EPS) / (product + _PEARSON_EPS)


def standardise(
    x: Float[ArrayLike, "*batch t"],
) -> tuple[Float32[Array, "*batch t"], Float32[Array, "*batch"]]:
    """Centre and divide by the deviation (ddof 1): float32 [..., t] and [...]."""
    x = jnp.asarray(x, jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    # Without the addition a constant signal, such as a frozen video's, has gradient NaN.
    deviation = jnp.sqrt(jnp.sum(x**2, axis=-1) / (x.shape[-1] - 1) + _NO_DEVIATION**2)
    return x / deviation[..., None], deviation


def negative_pearson(x: Float[ArrayLike, "*batch t"], y: Float[ArrayLike, "*batch t"]) -> Float32[Array, ""]:
    """Compute NP(x, y): the mean of 1 − Pearson over everything but the last axis.

    Args:
      x: Signals, float [..., t].
      y: As many signals of the same length.

    Returns:
      float32 scalar in [0, 2]: 0 for the same shape, 1 for no correlation.

    References:
      Zhang et al. 2024, the negative Pearson loss in L_RPD.

    Example:
      >>> rise = jnp.array([[1.0, 2.0, 3.0]])
      >>> round(float(negative_pearson(rise, 5 * rise)), 4), round(float(negative_pearson(rise, -rise)), 4)
      (0.0, 2.0)
    """
    return jnp.mean(pearson_distance(x, y))


def _mean_squared(x: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float32[Array, ""]:
    return jnp.mean((x.astype(jnp.float32) - y.astype(jnp.float32)) ** 2)


# --- on the predicted wave --------------------------------------------------------------------------


def wave_pearson(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Let the waves agree: NP(y_o, y_t). First part of the paper's L_RPD."""
    del fps
    return negative_pearson(outputs.online.wave, outputs.target.wave)


def wave_power_mse(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Let the waves' power spectra agree: MSE(PSD(y_o), PSD(y_t)), each divided by its maximum.

    Second part of the paper's L_RPD.
    """
    del fps

    def psd(wave):
        power = spectrum.power_spectrum(wave)
        return power / (jnp.max(power, axis=-1, keepdims=True) + 1e-8)

    return _mean_squared(psd(outputs.online.wave), psd(outputs.target.wave))


def _wave_bins(wave: Float[Array, "n t"], fps: float) -> int:
    """Bins below 15 Hz (at 30 fps: all but the last), as the released code counts them."""
    t = wave.shape[-1]
    return min(int(spectrum.TOTAL_LIMIT_HZ * t / fps), t // 2)


def wave_amplitude_pearson(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Let the waves' amplitude spectra agree: NP(P_o, P_t). Released form."""
    o, t = outputs.online.wave, outputs.target.wave
    n_bins = _wave_bins(o, fps)
    return negative_pearson(spectrum.amplitude_spectrum(o, n_bins), spectrum.amplitude_spectrum(t, n_bins))


def wave_out_of_band(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Keep the online wave inside the pulse band: mean(ΣP_o / ΣP_o[0.5–3 Hz] − 1). Released form."""
    wave = outputs.online.wave
    return jnp.mean(spectrum.out_of_band_ratio(wave, fps, n_bins=_wave_bins(wave, fps)))


# --- on the self-similarities -----------------------------------------------------------------------


def _similarities(outputs: Outputs) -> list[tuple[Array, Array]]:
    """Pair the SSM of each scale, then each SSW, of the online network with the target's."""
    o, t = outputs.online, outputs.target
    return [*zip(o.ssm, t.ssm, strict=True), *zip(o.ssw, t.ssw, strict=True)]


def similarity_mse(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Let the similarities agree: Σ_i MSE(SSM) + MSE(SSW). The paper's L_MSE; in both forms."""
    del fps
    return sum(_mean_squared(a, b) for a, b in _similarities(outputs))


def similarity_pearson(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Let the similarities agree in shape: Σ_i NP(SSM rows) + NP(SSW). Released form."""
    del fps
    return sum(negative_pearson(a, b) for a, b in _similarities(outputs))


def similarity_deviation(
    outputs: Outputs, fps: float, *, weight_by_length: bool, ddof: int
) -> Float32[Array, ""]:
    """Keep the online network's diagonals even: mean deviation along them, over lags 1 … t_i − 2.

    Args:
      outputs: Outputs of both networks; only the online one's counts.
      fps: Not used.
      weight_by_length: Whether to multiply each lag's deviation by its diagonal's length / 20, as the
        released code does (which makes the term some 90 times the paper's).
      ddof: Degrees of freedom of the deviation; 0 in the paper form, 1 in the released one.

    Returns:
      float32 scalar, the mean over lags, clips and scales. The paper's L_SD.
    """
    del fps
    terms = []
    for matrix in outputs.online.ssm:
        t = matrix.shape[-1]
        deviation = self_similarity.diagonal_deviation(matrix, ddof=ddof)
        if weight_by_length:
            deviation = deviation * (jnp.arange(t, 0, -1, dtype=jnp.float32) / 20)
        terms.append(jnp.mean(deviation[..., 1 : t - 1]))
    return sum(terms) / len(terms)


def similarity_inverse_snr(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Keep the online similarity waves inside the pulse band: Σ_i mean(1 / SNR(SSW_i)).

    The paper's L_SNR.
    """
    o = outputs.online
    return sum(
        jnp.mean(1 / spectrum.snr(wave, fps * rate))
        for wave, rate in zip(o.ssw, o.relative_rates, strict=True)
    )


def similarity_out_of_band(outputs: Outputs, fps: float) -> Float32[Array, ""]:
    """Keep the online similarity waves inside the pulse band: mean_i mean(ΣP / ΣP[0.5–3 Hz] − 1).

    Released form, over the first t_i // 2 bins.
    """
    o = outputs.online
    terms = [
        jnp.mean(spectrum.out_of_band_ratio(wave, fps * rate, n_bins=wave.shape[-1] // 2))
        for wave, rate in zip(o.ssw, o.relative_rates, strict=True)
    ]
    return sum(terms) / len(terms)


# --- by name ------------------------------------------------------------------------------------------

WAVE_TERMS: Mapping[str, Callable[..., Float32[Array, ""]]] = {
    "wave_pearson": wave_pearson,
    "wave_power_mse": wave_power_mse,
    "wave_amplitude_pearson": wave_amplitude_pearson,
    "wave_out_of_band": wave_out_of_band,
}
"""Terms on y, the paper's L_RPD among them: they reach the predictor and nothing else."""

SIMILARITY_TERMS: Mapping[str, Callable[..., Float32[Array, ""]]] = {
    "similarity_mse": similarity_mse,
    "similarity_pearson": similarity_pearson,
    "similarity_deviation": similarity_deviation,
    "similarity_inverse_snr": similarity_inverse_snr,
    "similarity_out_of_band": similarity_out_of_band,
}
"""Terms on SSM and SSW, the paper's L_TSPD among them: they reach backbone and TS blocks."""

TERMS: dict[str, Callable[..., Float32[Array, ""]]] = {**WAVE_TERMS, **SIMILARITY_TERMS}
"""Every term by the name that a configuration uses."""


def total_loss(
    outputs: Outputs, fps: float, terms: Mapping[str, Mapping[str, Any]]
) -> tuple[Float32[Array, ""], dict[str, Float32[Array, ""]]]:
    """Sum the weighted terms of a form.

    Args:
      outputs: Outputs of both networks.
      fps: Frame rate of the clips in Hz.
      terms: Those of the form, `{name: {'weight': w, **settings}}`, names out of `TERMS`.

    Returns:
      The sum, float32 scalar, and each term already weighted.

    Raises:
      KeyError: A name is not in `TERMS`.

    Example:
      Waves that are opposite, weighed by a quarter:

      >>> from sspd_jax.method.outputs import similarity_outputs
      >>> rise = jnp.array([[1.0, 2.0, 3.0]])
      >>> both = Outputs(similarity_outputs(rise, ()), similarity_outputs(-rise, ()))
      >>> loss, terms = total_loss(both, 30.0, {"wave_pearson": {"weight": 0.25}})
      >>> round(float(loss), 4), list(terms)
      (0.5, ['wave_pearson'])
    """
    weighted = {}
    for name, settings in terms.items():
        settings = dict(settings)
        weight = settings.pop("weight")
        weighted[name] = weight * TERMS[name](outputs, fps, **settings)
    return sum(weighted.values(), start=jnp.float32(0)), weighted
