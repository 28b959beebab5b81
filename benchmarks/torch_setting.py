"""Device, precision and compilation of the network of torch_peer.py, and its fastest inference."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.torch_peer import build
from gconet_jax.models.gconet_plus import IMAGE_MEAN, IMAGE_STD


class Setting(NamedTuple):
    """Where and how PyTorch computes."""

    device: str = 'cpu'
    precision: str = 'float32'  # or 'bfloat16'; GPUs multiply float32 as TF32
    compiled: bool = False


def prepare(setting: Setting) -> None:
    """Configure PyTorch for speed: TF32 for float32, cuDNN's fastest algorithms."""
    if setting.device == 'cuda':
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True


def segmenter(
    weights: Mapping[str, np.ndarray], setting: Setting
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from uint8 images (N, H, W, 3) of one group to P (N, H, W), both numpy.

    Weights and features have the setting's precision and the layout `channels_last`.
    """
    prepare(setting)
    kind = getattr(torch, setting.precision)
    module = build(weights, masked_pass=False)
    module = module.to(setting.device, kind, memory_format=torch.channels_last)
    mean, std = (
        torch.tensor(x, device=setting.device).view(1, 3, 1, 1) for x in (IMAGE_MEAN, IMAGE_STD)
    )
    run = torch.compile(module, dynamic=False) if setting.compiled else module

    @torch.inference_mode()
    def segment(images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(images).to(setting.device).permute(0, 3, 1, 2)
        return run(((x / 255 - mean) / std).to(kind)).prob[:, 0].float().cpu().numpy()

    return segment
