"""What the compiler is told beside the program, and how the network is written for it.

XLA for CPU hands 2-D convolutions to Eigen, at the speed of the machine's matrix product, or by its own
choice to YNNPACK, which takes five to ten times as long on this network's shapes (jaxlib 0.10.2). The choice
is an option of a compilation, so it is made here, beside the form of convolution that profits from it.
Products and sums stay with YNNPACK: its sums round less.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import jax
import jax.monitoring

_COMPILED = "/jax/core/compile/backend_compile_duration"
_LONG_S = 1.0  # what compiles in less leaves little behind

_NO_CONVOLUTION = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}


@functools.cache
def options() -> dict[str, str]:
    """Return `compiler_options` of `jax.jit` for the default backend: {} where there is nothing to tell.

    An option that this version of XLA does not know, or knows by another name, is left out.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_NO_CONVOLUTION).lower().compile()
    except Exception:  # the kind depends on the version of JAX
        return {}
    return dict(_NO_CONVOLUTION)


def conv_form(form: str) -> str:
    """Choose the form of convolution that runs best when compiled with `options`.

    Args:
      form: A name in `sspd_jax.method.layers.conv3d.FORMS`.

    Returns:
      'planes' for 'auto' where the options apply, else `form` itself.
    """
    return "planes" if form == "auto" and options() else form


@functools.cache
def give_memory_back() -> None:
    """Have what the compiler used given back to the system after every long compilation of this process.

    Compiling a training step leaves about 1 GiB of freed memory with the C library, which keeps it (glibc;
    elsewhere nothing is done). Without this it lies beside the step as long as training lasts.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return

    def listen(event: str, duration_s: float, **_: Any) -> None:
        if event == _COMPILED and duration_s > _LONG_S:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(listen)
