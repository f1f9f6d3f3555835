"""The network in plain PyTorch, layer for layer, for `pytorch.py` to measure beside ours.

Written from the description of the method (arXiv 2311.05100 and the authors' released sizes); it shares no
code with `sspd_jax`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def squashed(c_in: int, c_out: int, kernel: tuple[int, int, int]) -> list[nn.Module]:
    """Convolve without padding in space, normalise, squash."""
    convolve = nn.Conv3d(c_in, c_out, kernel, padding=(1, 0, 0), bias=False)
    return [convolve, nn.BatchNorm3d(c_out), nn.Tanh()]


class Network(nn.Module):
    """Backbone and predictor: float32 [n, 3, t, 128, 128] → wave [n, t], F1 [n, t, 256]."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm3d(3)]
        for c_in, narrow, wide in ((3, 8, 16), (16, 16, 32), (32, 32, 64)):
            layers += squashed(c_in, narrow, (3, 5, 5)) + squashed(narrow, wide, (3, 3, 3))
            layers.append(nn.AvgPool3d((1, 2, 2)))
        self.backbone = nn.Sequential(*layers, *squashed(64, 256, (3, 3, 3)))
        self.predictor = nn.Sequential(
            *squashed(256, 64, (3, 1, 1)),
            nn.AvgPool3d(2),
            *squashed(64, 64, (3, 3, 3)),
            nn.Upsample(scale_factor=(2, 1, 1)),
            *squashed(64, 64, (3, 1, 1)),
        )
        self.last = nn.Conv3d(64, 1, 1)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Compute wave and F1."""
        f2 = self.backbone(video)
        wave = self.last(self.predictor(f2.detach()).mean((3, 4), keepdim=True))[:, 0, :, 0, 0]
        return wave, f2.mean((3, 4)).transpose(1, 2)


class Block(nn.Module):
    """One temporal-similarity block in the released form: [n, t, c] → (A, output)."""

    def __init__(self, kernel: int, features: int = 256, heads: int = 2):
        super().__init__()
        self.embed, self.heads = nn.Conv1d(features, features, kernel), heads
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.query, self.key, self.value, self.project = (nn.Linear(features, features) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute A and the output."""
        e = self.norm(self.embed(x.transpose(1, 2)).transpose(1, 2))
        n, t, c = e.shape
        q, k, v = (
            f(e).view(n, t, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        a = torch.tanh(self.project((q @ k.transpose(2, 3) / t @ v).transpose(1, 2).reshape(n, t, c)))
        resized = nn.functional.interpolate(x.transpose(1, 2), size=t, mode="nearest").transpose(1, 2)
        return a, resized + a


class Whole(nn.Module):
    """Everything that a training step runs of one network: wave and the features of three scales."""

    def __init__(self):
        super().__init__()
        self.network, self.blocks = Network(), nn.ModuleList(map(Block, (9, 7, 5)))

    def forward(self, video: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Compute wave and features."""
        wave, x = self.network(video)
        features = []
        for block in self.blocks:
            a, x = block(x)
            features.append(a)
        return wave, features
