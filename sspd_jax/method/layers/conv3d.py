"""How a 3-D convolution is written.

One operation, three ways of computing it. XLA's own 3-D convolution is right on GPU and TPU; on CPU it
reaches a few GFLOP/s for the few channels and many pixels of this network, and its gradients are slower
still. There the same sums are written as 2-D convolutions of combined frames ('planes'), which run at the
speed of the machine's matrix product and need half as many multiplications, or as matrix products over
unfolded pixels ('matmul'). Both work on one small block of frames at a time, forward and backward, so that a
block stays in the cache and the memory beyond inputs and outputs is that of one block.

'planes' is quick only where XLA hands 2-D convolutions to Eigen; by its own choice it gives some shapes to
YNNPACK, which takes ten times as long. `sspd_jax.runtime.compile_options` holds the option that prevents it,
so 'auto', which knows nothing of how its caller compiles, is 'matmul' on CPU.

Reference for 'planes': minimal filtering, A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016 (arXiv 1509.09308), here along time alone.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float

from sspd_jax.method.layers.chunked import Block, Count, map_blocks, reduce_blocks

FORMS = ("auto", "direct", "matmul", "planes")
FORM_ON_CPU, FORM_ELSEWHERE = "matmul", "direct"
"""What 'auto' stands for."""

# Rows (pixels) per matrix product: enough to feed the cores, few enough to stay in the L2 cache.
_ROWS_PER_BLOCK = 2048

# Pixels of all frames of a block of 'planes', about; of large pictures eight frames anyhow.
_PIXELS_PER_BLOCK = 65536

# Four outputs of a convolution with three taps from six frames, in six products instead of twelve: the
# outputs are OUT · ((INTO · frames) ∘ (TAPS · kernel)), evaluated at 0, ±1, ±2 and infinity.
_INTO = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
_TAPS = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float32
) / np.array([24], np.float32)
_OUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32
)
_LEAST_CHANNELS = 8  # with fewer, a product of one combined frame is too thin to be worth the combining


def resolve_form(form: str) -> str:
    """Name the form that 'auto' stands for on the default backend.

    Args:
      form: Name in `FORMS`.

    Returns:
      'matmul' for 'auto' on CPU, 'direct' for 'auto' elsewhere, else `form` itself.

    Raises:
      ValueError: `form` is none of these.
    """
    if form not in FORMS:
        raise ValueError(f"conv form {form!r} is none of {FORMS}")
    if form == "auto":
        return FORM_ON_CPU if jax.default_backend() == "cpu" else FORM_ELSEWHERE
    return form


def conv3d(
    x: Float[ArrayLike, "n t h w c"],
    kernel: Float[ArrayLike, "kt kh kw c c_out"],
    *,
    time_padding: int = 1,
    form: str = "auto",
) -> Float[Array, "n t+2*{time_padding}-kt+1 h-kh+1 w-kw+1 c_out"]:
    """Convolve video with a kernel: zero padding in time, none in space, stride 1, no bias.

    Like PyTorch's `Conv3d`, this is a cross-correlation.

    Args:
      x: Video, float [n, t, h, w, c].
      kernel: Kernel, float [kt, kh, kw, c, c_out], of the dtype of `x`.
      time_padding: Number of zero frames put before and after.
      form: 'direct' (XLA's convolution), 'planes' (2-D convolutions of combined frames, computed in float32),
        'matmul' (matrix products over blocks of frames) or 'auto'.

    Returns:
      float [n, t + 2·time_padding − kt + 1, h − kh + 1, w − kw + 1, c_out].

    Raises:
      ValueError: The form is unknown, or the kernel does not fit into the video.
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    kt, kh, kw, c, _ = kernel.shape
    _, t, h, w, channels = x.shape
    if channels != c or t + 2 * time_padding < kt or h < kh or w < kw:
        raise ValueError(f"kernel {kernel.shape} does not fit into video {x.shape}")
    form = resolve_form(form)
    if form == "planes":
        wide = (a.astype(jnp.float32) for a in (x, kernel))
        return _planes(*wide, time_padding, (0, 0)).astype(x.dtype)
    if form == "direct" or kh == kw == 1:
        return _direct(x, kernel, time_padding)
    return _matmul(x, kernel, time_padding)


def _direct(x: Array, kernel: Array, time_padding: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1, 1),
        padding=[(time_padding, time_padding), (0, 0), (0, 0)],
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )


def _frames_per_block(n_frames: Count, rows_per_frame: int) -> int:
    """Largest divisor of `n_frames`, known by now, whose rows fit a block (at least one frame)."""
    most = max(1, _ROWS_PER_BLOCK // rows_per_frame)
    return max(d for d in range(1, most + 1) if n_frames % d == 0)


def _pad_time(x: Array, amount: int) -> Array:
    # Not jnp.pad: the gradient of padding wider than the kernel cuts frames off, a negative amount.
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (amount, amount, 0), *[(0, 0, 0)] * 3])


def _stack_frames(padded: Array, start: Block, frames: int, kt: int) -> Array:
    """Lay the `kt` frames that meet in an output side by side on the channels: [frames, h, w, kt·c]."""
    _, _, h, w, c = padded.shape
    block = lax.dynamic_slice(padded, (*start, 0, 0, 0), (1, frames + kt - 1, h, w, c))[0]
    return jnp.concatenate([block[dt : dt + frames] for dt in range(kt)], axis=-1)


def _unfold_rows(stacked: Array, kw: int) -> Array:
    """Lay `kw` horizontal shifts side by side on the channels: [frames, h, w', kw·channels]."""
    w_out = stacked.shape[2] - kw + 1
    return jnp.concatenate([stacked[:, :, dw : dw + w_out] for dw in range(kw)], axis=-1)


def _taps_meet_outputs(kernel_shape: tuple[int, ...]) -> bool:
    """Whether the spatial taps are unfolded beside the outputs rather than the inputs.

    A product over pixels has the taps on one of its sides; the thinner side costs less to unfold.
    """
    kt, _, _, c, c_out = kernel_shape
    return c_out <= kt * c


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(x: Array, kernel: Array, time_padding: int) -> Array:
    kt, kh, kw, c, c_out = kernel.shape
    n, t, h, w, _ = x.shape
    t_out, h_out, w_out = t + 2 * time_padding - kt + 1, h - kh + 1, w - kw + 1
    padded = _pad_time(x, time_padding)
    frames = _frames_per_block(t_out, h_out * w_out)
    by_tap = kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kt * c, c_out)

    def meet_outputs(stacked):
        # One product gives what every pixel adds to each output around it; shift and sum.
        every_tap = by_tap.transpose(2, 0, 1, 3).reshape(kt * c, kh * kw * c_out)
        parts = (stacked.reshape(-1, kt * c) @ every_tap).reshape(frames, h, w, kh, kw, c_out)
        return sum(parts[:, dh : dh + h_out, dw : dw + w_out, dh, dw] for dh in range(kh) for dw in range(kw))

    def meet_inputs(stacked):
        # One product per vertical tap, over rows unfolded by the horizontal ones.
        rows = _unfold_rows(stacked, kw)
        products = [
            rows[:, dh : dh + h_out].reshape(-1, kw * kt * c) @ by_tap[dh].reshape(kw * kt * c, c_out)
            for dh in range(kh)
        ]
        return sum(products).reshape(frames, h_out, w_out, c_out)

    meet = meet_outputs if _taps_meet_outputs(kernel.shape) else meet_inputs
    return map_blocks(
        lambda block: meet(_stack_frames(padded, block, frames, kt)), n, t_out, frames, source=x
    )


def _matmul_forward(x: Array, kernel: Array, time_padding: int):
    return _matmul(x, kernel, time_padding), (x, kernel)


def _matmul_backward(time_padding: int, residuals, cotangent: Array):
    x, kernel = residuals
    kt, kh, kw, c, c_out = kernel.shape

    # To the input: the cotangent, padded to full overlap, meets the kernel turned about.
    turned = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    edge = [(0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1), (0, 0)]
    to_x = _matmul(jnp.pad(cotangent, edge), turned, kt - 1 - time_padding)

    # To the kernel: each block's frames meet the block's cotangent, summed over the blocks.
    n, t_out, h_out, w_out, _ = cotangent.shape
    padded = _pad_time(x, time_padding)
    frames = _frames_per_block(t_out, h_out * w_out)

    def product(a, b):
        a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
        return jnp.matmul(a.T, b, preferred_element_type=jnp.float32)

    def meet_outputs(stacked, ct):
        moved = [
            jnp.pad(ct, ((0, 0), (dh, kh - 1 - dh), (dw, kw - 1 - dw), (0, 0)))
            for dh in range(kh)
            for dw in range(kw)
        ]
        return product(stacked, jnp.concatenate(moved, axis=-1)).reshape(kt, c, kh, kw, c_out)

    def meet_inputs(stacked, ct):
        rows = _unfold_rows(stacked, kw)
        taps = [product(rows[:, dh : dh + h_out], ct) for dh in range(kh)]
        return jnp.stack(taps).reshape(kh, kw, kt, c, c_out).transpose(2, 3, 0, 1, 4)

    meet = meet_outputs if _taps_meet_outputs(kernel.shape) else meet_inputs

    def add_block(start, total):
        shape = (1, frames, h_out, w_out, c_out)
        ct = lax.dynamic_slice(cotangent, (*start, 0, 0, 0), shape)[0]
        return total + meet(_stack_frames(padded, start, frames, kt), ct)

    nothing = jnp.zeros((kt, c, kh, kw, c_out), jnp.float32)
    to_kernel = reduce_blocks(add_block, nothing, n, t_out, frames)
    return to_x, to_kernel.transpose(0, 2, 3, 1, 4).astype(kernel.dtype)


_matmul.defvjp(_matmul_forward, _matmul_backward)


# 'planes'


def _combine(matrix: np.ndarray, arrays: list[Array]) -> list[Array]:
    """Sum arrays with the weights of each row of a matrix."""
    return [sum(float(weight) * a for weight, a in zip(row, arrays, strict=True) if weight) for row in matrix]


def _plane(x: Array, kernel: Array, edge: tuple[int, int]) -> Array:
    """Convolve pictures [t, h, w, c] with [kh, kw, c, c_out]; `edge` rows and columns of zeros around."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(e, e) for e in edge], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _halves_products(kernel_shape: tuple[int, ...]) -> bool:
    kt, _, _, c, _ = kernel_shape
    return kt == len(_TAPS[0]) and c >= _LEAST_CHANNELS


def _convolve_block(frames: Array, kernel: Array, edge: tuple[int, int]) -> Array:
    """Convolve [t + kt − 1, h, w, c] → [t, h', w', c_out]; t is a multiple of four."""
    kt, kh, kw, c, c_out = kernel.shape
    t = len(frames) - kt + 1
    if not _halves_products(kernel.shape):
        stacked = jnp.concatenate([frames[dt : dt + t] for dt in range(kt)], axis=-1)
        return _plane(stacked, kernel.transpose(1, 2, 0, 3, 4).reshape(kh, kw, kt * c, c_out), edge)
    four, six = _OUT.shape
    combined = _combine(_INTO, [frames[i : i + t - four + 1 : four] for i in range(six)])
    kernels = _combine(_TAPS, list(kernel))
    products = [_plane(x, k, edge) for x, k in zip(combined, kernels, strict=True)]
    outputs = jnp.stack(_combine(_OUT, products), axis=1)
    return outputs.reshape(t, *outputs.shape[2:])


def _plane_gradient(x: Array, cotangent: Array, edge: tuple[int, int]) -> Array:
    """Pull a cotangent of `_plane` back to its kernel.

    A convolution of pictures by cotangents, summed over the frames. Written with its axes where Eigen wants
    them: within a loop XLA does not move them itself and falls back to code that is twenty times slower.
    """
    taps = _plane(x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3), edge)  # [c, kh, kw, c_out]
    return taps.transpose(1, 2, 0, 3)


def _block_gradient(frames: Array, cotangent: Array, kernel_shape: tuple[int, ...], edge) -> Array:
    """Pull a cotangent of `_convolve_block` back to its kernel."""
    kt, kh, kw, c, c_out = kernel_shape
    t = len(cotangent)
    if not _halves_products(kernel_shape):
        stacked = jnp.concatenate([frames[dt : dt + t] for dt in range(kt)], axis=-1)
        taps = _plane_gradient(stacked, cotangent, edge)
        return taps.reshape(kh, kw, kt, c, c_out).transpose(2, 0, 1, 3, 4)
    four, six = _OUT.shape
    combined = _combine(_INTO, [frames[i : i + t - four + 1 : four] for i in range(six)])
    cotangents = _combine(_OUT.T, [cotangent[i::four] for i in range(four)])
    taps = [_plane_gradient(x, ct, edge) for x, ct in zip(combined, cotangents, strict=True)]
    return jnp.stack(_combine(_TAPS.T, taps))


def _block_length(t_out: int, pixels: int) -> int:
    """Choose the frames of a block: a multiple of four near the wanted size, so that little is left over.

    What is left over is computed for nothing, and cut off by a copy of everything.
    """
    four = len(_OUT)
    wanted = max(2, _PIXELS_PER_BLOCK // (four * pixels))
    most = min(2 * wanted, -(-t_out // four))

    def cost(groups: int) -> tuple[int, float]:
        frames = four * groups
        return -(-t_out // frames) * frames, abs(math.log(groups / wanted))

    return four * min(range(max(1, min(wanted // 2, most)), most + 1), key=cost)


def _frames_from(x: Array, clip: Array, first: Array, count: int, before: int, after: int) -> Array:
    """Take `count` frames of a clip from `first` on: [count, h, w, c], zeros where there is no frame.

    At most `before` of them lie before the clip and `after` behind it. A copy of the whole video with zeros
    around would cost more memory than everything else here.
    """
    t, *size = x.shape[1:]
    # Padding wider than the kernel makes the gradient's negative: nothing is missing on that side then.
    before, after = max(before, 0), max(after, 0)
    there = min(count, t)
    start = jnp.clip(first, 0, t - there)
    frames = lax.dynamic_slice(x, (clip, start, 0, 0, 0), (1, there, *size))[0]
    if not before and not after:
        return frames
    widths = [(before + count - there, after + count - there, 0), *[(0, 0, 0)] * 3]
    around = lax.pad(frames, jnp.zeros((), x.dtype), widths)
    return lax.dynamic_slice_in_dim(around, first - start + before + count - there, count)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _planes(x: Array, kernel: Array, time_padding: int, edge: tuple[int, int]) -> Array:
    n, t = x.shape[:2]
    t_out = t + 2 * time_padding - len(kernel) + 1
    length, count, take = _blocks(x, len(kernel), time_padding, t_out)
    out = map_blocks(
        lambda block: _convolve_block(take(block), kernel, edge), n, count * length, length, source=x
    )
    return out[:, :t_out]


def _blocks(x: Array, kt: int, time_padding: int, t_out: int):
    """Cut a convolution into blocks of outputs: their length and number, and what takes the inputs of one."""
    _, t, h, w, _ = x.shape
    length = _block_length(t_out, h * w)
    count = -(-t_out // length)
    behind = count * length + kt - 1 - time_padding - t

    def take(block: Block) -> Array:
        clip, first = block
        return _frames_from(x, clip, first - time_padding, length + kt - 1, time_padding, behind)

    return length, count, take


def _planes_forward(x: Array, kernel: Array, time_padding: int, edge: tuple[int, int]):
    return _planes(x, kernel, time_padding, edge), (x, kernel)


def _planes_backward(time_padding: int, edge: tuple[int, int], residuals, cotangent: Array):
    x, kernel = residuals
    kt, kh, kw, _, _ = kernel.shape

    # To the input: the cotangent, padded to full overlap, meets the kernel turned about.
    turned = kernel[::-1, ::-1, ::-1].swapaxes(3, 4)
    around = (kh - 1 - edge[0], kw - 1 - edge[1])
    to_x = _planes(cotangent, turned, kt - 1 - time_padding, around)

    # To the kernel: each block's frames meet the block's cotangent, summed over the blocks.
    n, t_out = cotangent.shape[:2]
    length, count, take = _blocks(x, kt, time_padding, t_out)

    def add_block(block: Block, total: Array) -> Array:
        ct = _frames_from(cotangent, *block, length, 0, count * length - t_out)
        return total + _block_gradient(take(block), ct, kernel.shape, edge)

    return to_x, reduce_blocks(add_block, jnp.zeros_like(kernel), n, count * length, length)


_planes.defvjp(_planes_forward, _planes_backward)
