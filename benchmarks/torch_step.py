"""One training step of the released code in PyTorch, for timing comparisons with ours.

It uses the network of torch_peer.py, and the settings and losses of `gconet_jax.config.released`.
"""

# pyright: reportMissingImports=false

import contextlib
import multiprocessing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.torch_peer import (
    K_FALLBACK,
    THREADS,
    K,
    Peer,
    as_nchw,
    build,
    resize,
)
from benchmarks.torch_setting import Setting, prepare
from gconet_jax.config import Config
from gconet_jax.host_memory import keep_freed_memory

Step = Callable[[], tuple[float, float]]


class RemoteStep:
    """`make_step` in a separate process with separate memory; it ends with this process."""

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        config: Config,
        *,
        compiled: bool = False,
        keep_memory: bool = False,
    ):
        context = multiprocessing.get_context('spawn')
        self._connection, other = context.Pipe()
        arguments = other, keep_memory, (weights, batch, config, Setting(compiled=compiled))
        context.Process(target=_take_steps, args=arguments, daemon=True).start()
        other.close()

    def __call__(self) -> tuple[float, float]:
        """Run one more step and return its loss and gradient norm."""
        self._connection.send(None)
        return self._connection.recv()


def _take_steps(connection: Any, keep_memory: bool, arguments: tuple) -> None:
    if keep_memory:
        keep_freed_memory()
    torch.set_num_threads(THREADS)
    step = make_step(*arguments)
    with contextlib.suppress(EOFError):  # the other process has ended
        while True:
            connection.recv()
            connection.send(step())


def make_step(
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, Any],
    config: Config,
    setting: Setting,
    pairs: int = 1,
) -> Step:
    """Return a function that runs one step and returns its loss and gradient norm.

    The backbone is frozen and normalises by the batch, as released. The step accumulates the
    gradients of `pairs` pairs in sequence, each a copy of the pair in `batch`. In bfloat16 the
    network runs under autocast and the losses in float32.
    """
    prepare(setting)
    device, layout = setting.device, torch.channels_last
    module = build(weights).train().to(device)
    if device == 'cuda':
        module = module.to(memory_format=layout)
    module.bb.requires_grad_(False)
    trained = [p for p in module.parameters() if p.requires_grad]
    betas = config.train.b1, config.train.b2
    rate = config.train.learning_rate
    optimizer = torch.optim.Adam(trained, rate, betas=betas, fused=device == 'cuda')
    _, _, n, height, width, _ = batch['image'].shape
    images = as_nchw(np.asarray(batch['image']).reshape(2 * n, height, width, 3)).to(device)
    if device == 'cuda':
        images = images.contiguous(memory_format=layout)
    masks = torch.tensor(np.asarray(batch['mask'])).reshape(2 * n, 1, height, width).to(device)
    labels = torch.tensor(np.asarray(batch['label'])[0]).long().repeat_interleave(n).to(device)

    def loss(images: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=setting.precision == 'bfloat16'):
            outputs = network(module, images)
        return pair_loss(Outputs(*(x.float() for x in outputs)), masks, labels, config)

    if setting.compiled:
        loss = torch.compile(loss)

    def step() -> tuple[float, float]:
        optimizer.zero_grad(set_to_none=True)
        values = []
        for _ in range(pairs):
            value = loss(images, masks, labels)
            value.backward()
            values.append(value.detach())
        squares = [p.grad.square().sum() for p in trained if p.grad is not None]
        optimizer.step()
        return float(torch.stack(values).sum()), float(torch.stack(squares).sum().sqrt())

    return step


class Outputs(NamedTuple):
    """The inputs of the losses for a pair of groups of n images, one in each half of the batch."""

    prob: Tensor  # (2n, 1, H, W)
    thresh: Tensor  # (2n, 1, H, W)
    contrast: Tensor  # (4n, 1, H, W): under the group's own consensus, then under the other's
    pooled: Tensor  # (2n, 512)
    classes: Tensor  # (2n, 291)
    masked_classes: Tensor  # (2n, 291)


def network(module: Peer, images: Tensor) -> Outputs:
    """Run the training pass of the released network."""
    features = module.encode(images)
    x5, n = features[-1], len(images) // 2
    attention = module.co_x5['all_attention']
    shared = [attention(x).mean(dim=(0, 2, 3), keepdim=True) for x in (x5[:n], x5[n:])]
    own = torch.cat([x5[:n] * shared[0], x5[n:] * shared[1]])
    others = torch.cat([x5[:n] * shared[1], x5[n:] * shared[0]])
    hidden = functional.relu(module.pred_layer['enlayer'](torch.cat([own, others])))
    contrast = resize(module.pred_layer['predlayer'](hidden), images)
    p1 = module.decode(own, features, images)
    prob, thresh = (module.db_output_decoder[name](p1) for name in ('binarize', 'thresh'))
    masked = module.encode(images * torch.sigmoid(module.conv_out_mask(p1)))[-1]
    pooled = x5.mean(dim=(2, 3))
    classes = module.classifier(pooled)
    masked_classes = module.classifier(masked.mean(dim=(2, 3)))
    return Outputs(prob, thresh, contrast, pooled, classes, masked_classes)


def pair_loss(outputs: Outputs, masks: Tensor, labels: Tensor, config: Config) -> Tensor:
    """Return the released loss of a pair of groups."""
    difference = outputs.prob - outputs.thresh
    k = torch.where(torch.exp(-K * difference).isinf().any(), K_FALLBACK, K)
    maps = 1 / (1 + torch.exp(-k * difference))
    weight, pooled, n = config.loss, outputs.pooled, len(masks) // 2
    both = (maps * masks).sum(dim=(1, 2, 3))
    either = (maps + masks).sum(dim=(1, 2, 3)) - both
    first, last = n // 2, n - n // 2
    a1, a2, b1, b2 = pooled[:first], pooled[last:n], pooled[n : n + first], pooled[n + last :]
    terms = {
        'bce': functional.binary_cross_entropy(maps, masks),
        'iou': (1 - both / either).sum(),
        'gcm': focal(outputs.contrast, torch.cat([masks, torch.zeros_like(masks)])),
        'gst': sum(
            functional.triplet_margin_loss(*each, margin=weight.gst_margin)
            for each in ((a1, a2, b1), (b1, b2, a1))
        ),
        'acm': functional.cross_entropy(outputs.classes, labels),
        'racm': functional.cross_entropy(outputs.masked_classes, labels),
    }
    return sum(getattr(weight, name) * term for name, term in terms.items())


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean focal loss with gamma 2."""
    cross = functional.binary_cross_entropy_with_logits(logits, truth, reduction='none')
    return (cross * (1 - torch.exp(-cross)) ** 2).mean()
