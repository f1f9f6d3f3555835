"""The method's formulas once more, in float64 NumPy with plain loops, as far from ours as they can be."""

import math

import numpy as np

PULSE_BAND_HZ = (0.5, 3.0)


def _f64(x):
    return np.asarray(x, np.float64)


# --- self-similarity --------------------------------------------------------------------------------


def similarity_matrix(features):
    """SSM[j, k] = cos(A_j, A_k) of one clip's features [t, c]."""
    a = _f64(features)
    t = len(a)
    matrix = np.zeros((t, t))
    for j in range(t):
        for k in range(t):
            norms = math.sqrt(a[j] @ a[j]) * math.sqrt(a[k] @ a[k])
            matrix[j, k] = a[j] @ a[k] / norms if norms else 0
    return matrix


def diagonal(matrix, lag):
    """Entries [j, j + lag], from the top."""
    return np.array([matrix[j][j + lag] for j in range(len(matrix) - lag)], np.float64)


def similarity_wave(matrix):
    """SSW[d] = mean over j of SSM[j, j + d] of one clip."""
    return np.array([diagonal(matrix, lag).mean() for lag in range(len(matrix))])


def diagonal_deviation(matrix, ddof):
    """Deviation along each upper diagonal of one clip; 0 where there are too few entries."""
    lines = [diagonal(matrix, lag) for lag in range(len(matrix))]
    return np.array([line.std(ddof=ddof) if len(line) > ddof else 0.0 for line in lines])


# --- spectra ----------------------------------------------------------------------------------------


def dft(wave):
    """Σ_n x_n·exp(−2πi·k·n/t) for k = 0 … t // 2 of a wave [t]."""
    x = _f64(wave)
    n = np.arange(len(x))
    return np.array([np.sum(x * np.exp(-2j * np.pi * k * n / len(x))) for k in range(len(x) // 2 + 1)])


def power(wave):
    """|DFT|² of the wave without its mean."""
    return np.abs(dft(_f64(wave) - _f64(wave).mean())) ** 2


def snr(wave, fps):
    """Power in [0.5, 3] Hz over power in (0, min(15, fps/2)] Hz, ends included."""
    p = power(wave)
    band = total = 0.0
    for k in range(1, len(p)):
        hz = k * fps / len(wave)
        if hz <= min(15, fps / 2) + 1e-6:
            total += p[k]
        if 0.5 - 1e-6 <= hz <= 3 + 1e-6:
            band += p[k]
    return band / total


def amplitude(wave, n_bins):
    """First bins of |DFT| of the raw wave over their maximum."""
    a = np.abs(dft(wave))[:n_bins]
    return a / a.max()


def out_of_band(wave, fps, n_bins):
    """ΣP / ΣP[0.5–3 Hz] − 1 on amplitudes; the band's upper bin excluded."""
    p = amplitude(wave, n_bins)
    low, high = int(0.5 * len(wave) / fps), int(3 * len(wave) / fps)
    return p.sum() / p[low:high].sum() - 1


# --- terms, of batches ------------------------------------------------------------------------------


def np_distance(x, y):
    """1 − Pearson over the last axis, averaged over all others."""
    x, y = (_f64(a).reshape(-1, np.shape(a)[-1]) for a in (x, y))
    return np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(x, y, strict=True)])


def mse(x, y):
    """Mean squared difference."""
    return np.mean((_f64(x) - _f64(y)) ** 2)


def terms(online_wave, target_wave, online_features, target_features, *, fps, relative_rates):
    """Every loss term, unweighted, by our names; deviation in both forms' settings."""
    ssm_o, ssm_t = (
        [np.stack([similarity_matrix(clip) for clip in scale]) for scale in features]
        for features in (online_features, target_features)
    )
    ssw_o, ssw_t = (
        [np.stack([similarity_wave(m) for m in scale]) for scale in ssm] for ssm in (ssm_o, ssm_t)
    )
    rates = [fps * rate for rate in relative_rates]
    t = np.shape(online_wave)[-1]
    n_bins = min(int(15 * t / fps), t // 2)  # at 30 fps the two are one

    def psd(waves):
        return np.stack([power(w) / power(w).max() for w in waves])

    def amplitudes(waves):
        return np.stack([amplitude(w, n_bins) for w in waves])

    def lags(ssm, ddof):
        """Deviations on lags 1 … t_i − 2, and those diagonals' lengths."""
        inner = np.stack([diagonal_deviation(m, ddof)[1:-1] for m in ssm])
        return inner, np.arange(ssm.shape[-1] - 1, 1, -1)

    paper, released = [], []
    for ssm in ssm_o:
        paper.append(lags(ssm, 0)[0].mean())
        deviations, lengths = lags(ssm, 1)
        released.append((deviations * lengths / 20).mean())
    scales = [*zip(ssm_o, ssm_t, strict=True), *zip(ssw_o, ssw_t, strict=True)]
    return {
        "wave_pearson": np_distance(online_wave, target_wave),
        "wave_power_mse": mse(psd(online_wave), psd(target_wave)),
        "wave_amplitude_pearson": np_distance(amplitudes(online_wave), amplitudes(target_wave)),
        "wave_out_of_band": np.mean([out_of_band(w, fps, n_bins) for w in online_wave]),
        "similarity_mse": sum(mse(a, b) for a, b in scales),
        "similarity_pearson": sum(np_distance(a, b) for a, b in scales),
        "similarity_deviation": {"paper": np.mean(paper), "released": np.mean(released)},
        "similarity_inverse_snr": sum(
            np.mean([1 / snr(w, hz) for w in ssw]) for ssw, hz in zip(ssw_o, rates, strict=True)
        ),
        "similarity_out_of_band": np.mean(
            [
                np.mean([out_of_band(w, hz, len(w) // 2) for w in ssw])
                for ssw, hz in zip(ssw_o, rates, strict=True)
            ]
        ),
    }


# --- network ----------------------------------------------------------------------------------------


def conv3d(x, kernel, time_padding):
    """Cross-correlate one clip [t, h, w, c] with a kernel [kt, kh, kw, c, c_out]."""
    x, kernel = _f64(x), _f64(kernel)
    kt, kh, kw, _, c_out = kernel.shape
    x = np.pad(x, ((time_padding, time_padding), (0, 0), (0, 0), (0, 0)))
    t, h, w = (size - k + 1 for size, k in zip(x.shape[:3], (kt, kh, kw), strict=True))
    out = np.zeros((t, h, w, c_out))
    for i, j, k in np.ndindex(t, h, w):
        window = x[i : i + kt, j : j + kh, k : k + kw]
        for o in range(c_out):
            out[i, j, k, o] = np.sum(window * kernel[..., o])
    return out


def attention(query, key, value, heads, scale):
    """(Q Kᵀ / s) V head by head, of one clip's [t, c]."""
    q, k, v = map(_f64, (query, key, value))
    width = q.shape[-1] // heads
    parts = []
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        parts.append((q[:, own] @ k[:, own].T / scale) @ v[:, own])
    return np.concatenate(parts, axis=-1)


def ts_block(params, x, *, kernel, stride, heads, form):
    """One temporal-similarity block on one clip [t, c]: (A, output); `form` is 'paper' or 'released'."""
    params = {name: {k: _f64(v) for k, v in part.items()} for name, part in params.items()}
    x = _f64(x)
    weight, bias = params["embed"]["kernel"], params["embed"]["bias"]
    t = (len(x) - kernel) // stride + 1
    e = np.stack([sum(x[i * stride + j] @ weight[j] for j in range(kernel)) + bias for i in range(t)])
    centred = e - e.mean(axis=-1, keepdims=True)
    e = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    e = e * params["norm"]["scale"] + params["norm"]["bias"]
    q, k, v = (e @ params[name]["kernel"] + params[name]["bias"] for name in ("query", "key", "value"))
    if form == "paper":
        a = attention(q, k, v, heads, scale=e.shape[-1]) @ params["proj"]["kernel"]
        return a, e + a
    a = attention(q, k, v, heads, scale=t) @ params["proj"]["kernel"] + params["proj"]["bias"]
    a = np.tanh(a)
    nearest = np.stack([x[math.floor(i * len(x) / t)] for i in range(t)])
    return a, nearest + a


def batch_norm(x, scale, bias, mean, var):
    """Normalise [..., c] in training mode: (output, running mean, running variance), PyTorch's way."""
    x = _f64(x)
    flat = x.reshape(-1, x.shape[-1])
    batch_mean, batch_var = flat.mean(axis=0), flat.var(axis=0)
    out = (x - batch_mean) / np.sqrt(batch_var + 1e-5) * scale + bias
    unbiased = flat.var(axis=0, ddof=1)
    return out, 0.9 * _f64(mean) + 0.1 * batch_mean, 0.9 * _f64(var) + 0.1 * unbiased
