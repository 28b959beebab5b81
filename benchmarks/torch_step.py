"""One training step of the released code in PyTorch: what ours is timed beside.

The network is torch_peer.py's; settings and losses are those of `gconet_jax.config.released`.
"""

# pyright: reportMissingImports=false

import contextlib
import multiprocessing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.torch_peer import K_FALLBACK, THREADS, K, Peer, as_nchw, build, resize
from gconet_jax.config import Config
from gconet_jax.host_memory import keep_freed_memory

Step = Callable[[], tuple[float, float]]


class RemoteStep:
    """`make_step` in a process of its own, whose memory is its own; ends with this process."""

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
        arguments = other, keep_memory, (weights, batch, config, compiled)
        context.Process(target=_take_steps, args=arguments, daemon=True).start()
        other.close()

    def __call__(self) -> tuple[float, float]:
        """Loss and gradient norm of one more step."""
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
    weights: Mapping[str, np.ndarray], batch: Mapping[str, Any], config: Config, compiled: bool
) -> Step:
    """A function that takes one step on the one pair of `batch`, and gives loss and gradient norm.

    The backbone is frozen and normalises by the batch, as released.
    """
    module = build(weights).train()
    module.bb.requires_grad_(False)
    trained = [p for p in module.parameters() if p.requires_grad]
    betas = config.train.b1, config.train.b2
    optimizer = torch.optim.Adam(trained, config.train.learning_rate, betas=betas)
    _, _, n, height, width, _ = batch['image'].shape
    images = as_nchw(np.asarray(batch['image']).reshape(2 * n, height, width, 3))
    masks = torch.tensor(np.asarray(batch['mask'])).reshape(2 * n, 1, height, width)
    labels = torch.tensor(np.asarray(batch['label'])[0]).long().repeat_interleave(n)

    def loss(images: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
        return pair_loss(module, images, masks, labels, config)

    if compiled:
        loss = torch.compile(loss)

    def step() -> tuple[float, float]:
        optimizer.zero_grad(set_to_none=True)
        value = loss(images, masks, labels)
        value.backward()
        squares = [p.grad.square().sum() for p in trained if p.grad is not None]
        optimizer.step()
        return value.item(), float(torch.stack(squares).sum().sqrt())

    return step


def pair_loss(
    module: Peer, images: Tensor, masks: Tensor, labels: Tensor, config: Config
) -> Tensor:
    """The released loss of a pair of groups, the first half and the second half of `images`."""
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
    difference = prob - thresh
    k = torch.where(torch.exp(-K * difference).isinf().any(), K_FALLBACK, K)
    maps = 1 / (1 + torch.exp(-k * difference))
    masked = module.encode(images * torch.sigmoid(module.conv_out_mask(p1)))[-1]

    weight, pooled = config.loss, x5.mean(dim=(2, 3))
    both = (maps * masks).sum(dim=(1, 2, 3))
    either = (maps + masks).sum(dim=(1, 2, 3)) - both
    first, last = n // 2, n - n // 2
    a1, a2, b1, b2 = pooled[:first], pooled[last:n], pooled[n : n + first], pooled[n + last :]
    terms = {
        'bce': functional.binary_cross_entropy(maps, masks),
        'iou': (1 - both / either).sum(),
        'gcm': focal(contrast, torch.cat([masks, torch.zeros_like(masks)])),
        'gst': sum(
            functional.triplet_margin_loss(*each, margin=weight.gst_margin)
            for each in ((a1, a2, b1), (b1, b2, a1))
        ),
        'acm': functional.cross_entropy(module.classifier(pooled), labels),
        'racm': functional.cross_entropy(module.classifier(masked.mean(dim=(2, 3))), labels),
    }
    return sum(getattr(weight, name) * term for name, term in terms.items())


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Focal loss, gamma 2, mean."""
    cross = functional.binary_cross_entropy_with_logits(logits, truth, reduction='none')
    return (cross * (1 - torch.exp(-cross)) ** 2).mean()
