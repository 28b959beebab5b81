"""The released network in PyTorch, inference only, for timing comparisons with ours.

    PYTHONPATH=. python benchmarks/torch_peer.py [--golden=tests/golden] [--compile] [--passes=5]

It runs in plain float32 NCHW on the CPU, with batch norm not folded. First it must reproduce the
stored outputs of the released code to 1e-4. Then it is timed on a group of 10 images of 256 x 256,
on two threads:

    released         with the backbone pass over the masked images, which inference discards
    lean             without that pass
    ..., compiled    by torch.compile, with --compile

Rows take turns within a pass. This needs PyTorch: pip install torch==2.13.0.
"""

# pyright: reportMissingImports=false

import argparse
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import measure
from gconet_jax.weights.torch_gconet import NEVER_USED
from gconet_jax.weights.torch_names import VGG16_BN_INDICES
from tests import golden_cases

WIDTHS = (64, 128, 256, 512, 512)  # channels of x1 to x5
HIDDEN, CLASSES = 64, 291  # channels inside the decoder's blocks; outputs of the classifier
K, K_FALLBACK = 300.0, 50.0
TOLERANCE = 1e-4
THREADS, IMAGES, SIZE = 2, 10, 256


class Output(NamedTuple):
    pred: Tensor  # (N, 1, H, W): M
    prob: Tensor  # (N, 1, H, W): P
    thresh: Tensor  # (N, 1, H, W): T
    classes: Tensor | None  # (N, 291), of the masked images; no map depends on it


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Resize bilinearly with aligned corners, to the height and width of `like`."""
    return functional.interpolate(x, like.shape[2:], mode='bilinear', align_corners=True)


def backbone() -> nn.ModuleDict:
    """Return VGG-16 with batch norm as five stages; layers keep torchvision's numbers."""
    stages, inputs = nn.ModuleDict(), 3
    for number, (outputs, indices) in enumerate(zip(WIDTHS, VGG16_BN_INDICES, strict=True), 1):
        parts: dict[str, nn.Module] = {str(indices[0] - 1): nn.MaxPool2d(2)} if number > 1 else {}
        for index in indices:
            parts[str(index)] = nn.Conv2d(inputs, outputs, 3, padding=1)
            parts[str(index + 1)] = nn.BatchNorm2d(outputs)
            parts[str(index + 2)] = nn.ReLU(inplace=True)
            inputs = outputs
        stages[f'conv{number}'] = nn.Sequential(OrderedDict(parts))
    return stages


class ResBlk(nn.Module):
    """Two 3x3 convolutions with batch norm and a ReLU between them."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, HIDDEN, 3, padding=1)
        self.bn_in = nn.BatchNorm2d(HIDDEN)
        self.conv_out = nn.Conv2d(HIDDEN, outputs, 3, padding=1)
        self.bn_out = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn_out(self.conv_out(functional.relu(self.bn_in(self.conv_in(x)))))


class Attention(nn.Module):
    """The GAM up to the attended features."""

    def __init__(self, channels: int):
        super().__init__()
        self.query_transform = nn.Conv2d(channels, channels, 1)
        self.key_transform = nn.Conv2d(channels, channels, 1)
        self.conv6 = nn.Conv2d(channels, channels, 1)

    def forward(self, x5: Tensor) -> Tensor:
        """Return attended features of the shape of x5 (N, C, h, w)."""
        n, channels, h, w = x5.shape
        query = self.query_transform(x5).flatten(2).transpose(1, 2).reshape(-1, channels)
        key = self.key_transform(x5).flatten(2).transpose(1, 2).reshape(-1, channels)
        best = (query @ key.T).view(n * h * w, n, h * w).amax(dim=2)
        scores = best.mean(dim=1).view(n, h * w) * channels**-0.5
        return self.conv6(x5 * scores.softmax(dim=1).view(n, 1, h, w))


def branch(channels: int) -> nn.Sequential:
    """Return one of the CEM's two branches."""
    layers = nn.Sequential()
    for _ in range(2):
        layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        layers.append(nn.BatchNorm2d(channels)).append(nn.ReLU(inplace=True))
    return layers.append(nn.Conv2d(channels, 1, 1)).append(nn.Sigmoid())


class Peer(nn.Module):
    """The network; its state_dict has the released names, except those that nothing uses."""

    def __init__(self, *, masked_pass: bool):
        super().__init__()
        self.masked_pass = masked_pass
        self.bb = backbone()
        self.co_x5 = nn.ModuleDict({'all_attention': Attention(512)})
        self.top_layer = ResBlk(512, 256)
        self.enlayer5, self.latlayer5 = ResBlk(256, 256), nn.Conv2d(512, 256, 1)
        self.enlayer4, self.latlayer4 = ResBlk(256, 128), nn.Conv2d(256, 128, 1)
        self.enlayer3, self.latlayer3 = ResBlk(128, 64), nn.Conv2d(128, 64, 1)
        self.enlayer2, self.latlayer2 = ResBlk(64, 32), nn.Conv2d(64, 32, 1)
        self.enlayer1 = ResBlk(32, 32)
        self.db_output_decoder = nn.ModuleDict({'binarize': branch(32), 'thresh': branch(32)})
        self.conv_out_mask = nn.Sequential(nn.Conv2d(32, 1, 1))
        self.classifier = nn.Linear(512, CLASSES)
        hidden, predict = nn.Conv2d(512, 128, 3, padding=1), nn.Conv2d(128, 1, 1)
        parts = {'enlayer': nn.Sequential(hidden), 'predlayer': nn.Sequential(predict)}
        self.pred_layer = nn.ModuleDict(parts)  # the GCM, which runs only in training

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return x1 to x5."""
        features = [x]
        for stage in self.bb.values():
            features.append(stage(features[-1]))
        return features[1:]

    def decode(self, x: Tensor, features: list[Tensor], images: Tensor) -> Tensor:
        """Decode x5, weighted by the consensus, to p1 at the size of the images."""
        x1, x2, x3, x4, _ = features
        x = resize(self.enlayer5(self.top_layer(x)), x4) + self.latlayer5(x4)
        x = resize(self.enlayer4(x), x3) + self.latlayer4(x3)
        x = resize(self.enlayer3(x), x2) + self.latlayer3(x2)
        x = resize(self.enlayer2(x), x1) + self.latlayer2(x1)
        return resize(self.enlayer1(x), images)

    def forward(self, images: Tensor) -> Output:
        """Segment one group (N, 3, H, W), normalised."""
        features = self.encode(images)
        x5 = features[-1]
        consensus = self.co_x5['all_attention'](x5).mean(dim=(0, 2, 3), keepdim=True)
        p1 = self.decode(x5 * consensus, features, images)
        prob, thresh = (self.db_output_decoder[name](p1) for name in ('binarize', 'thresh'))
        difference = prob - thresh
        # `where` instead of `if`, so that the network compiles as one graph.
        k = torch.where(torch.exp(-K * difference).isinf().any(), K_FALLBACK, K)
        classes = None
        if self.masked_pass:
            masked = images * torch.sigmoid(self.conv_out_mask(p1))
            classes = self.classifier(self.encode(masked)[-1].mean(dim=(2, 3)))
        return Output(1 / (1 + torch.exp(-k * difference)), prob, thresh, classes)


def build(weights: Mapping[str, np.ndarray], *, masked_pass: bool = True) -> Peer:
    """Return the network in eval mode, with a released `state_dict` of numpy arrays.

    `masked_pass=False` skips the second backbone pass, on which no map depends.

    Raises:
        RuntimeError: names are missing or unexpected, or shapes differ.
    """
    module = Peer(masked_pass=masked_pass)
    used = {n: torch.from_numpy(a) for n, a in weights.items() if not n.startswith(NEVER_USED)}
    module.load_state_dict(used)
    return module.eval()


def as_nchw(images: np.ndarray) -> Tensor:
    """Transpose (N, H, W, 3) to contiguous (N, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def runners(
    weights: Mapping[str, np.ndarray], images: np.ndarray, compiled: bool
) -> dict[str, Callable[[], np.ndarray]]:
    """Return the rows `released`, `lean` and compiled ones; each returns P (N, H, W) of a group.

    `images` are normalised, float32 (N, H, W, 3).
    """
    x = as_nchw(images)
    modules = {'released': build(weights), 'lean': build(weights, masked_pass=False)}
    if compiled:
        modules |= {f'{name}, compiled': torch.compile(module) for name, module in modules.items()}

    @torch.inference_mode()
    def prob(module: nn.Module) -> np.ndarray:
        return module(x).prob[:, 0].numpy()

    return {name: functools.partial(prob, module) for name, module in modules.items()}


@torch.inference_mode()
def golden_errors(path: Path) -> dict[str, float]:
    """Return the largest differences from the released code's outputs in a golden eval case."""
    meta, golden = golden_cases.load(path)
    output = build(golden_cases.state_dict(meta))(as_nchw(golden_cases.images(meta, meta['n'])))
    prob, thresh = (x[..., ::4, ::4] for x in (output.prob, output.thresh))
    got = {'pred': output.pred, 'prob': prob, 'thresh': thresh}
    return {name: float(np.abs(x.numpy() - golden[name]).max()) for name, x in got.items()}


def check(folder: Path) -> dict[str, dict[str, float]]:
    """Return `golden_errors` of every eval case in `folder`.

    Raises:
        SystemExit: there is no case, or an error is too large.
    """
    errors = {path.stem: golden_errors(path) for path in sorted(folder.glob('eval_*.npz'))}
    if not errors:
        raise SystemExit(f'{folder} holds no eval_*.npz')
    for case, parts in errors.items():
        print(f'{case:22}', '  '.join(f'{name} {error:.1e}' for name, error in parts.items()))
        if not max(parts.values()) < TOLERANCE:
            raise SystemExit(f'{case} is not within {TOLERANCE:.0e} of the released code')
    return errors


def main() -> None:
    """Check the outputs, then print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description='The released network in PyTorch, timed.')
    parser.add_argument('--golden', type=Path, default=golden_cases.GOLDEN)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--passes', type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    errors = check(arguments.golden)
    meta = {'seed': 0, 'h': SIZE, 'w': SIZE, 'db_scale': 1.0, 'thresh_bias': 0.0}
    images = golden_cases.images(meta, IMAGES)
    rows = runners(golden_cases.state_dict(meta), images, arguments.compile)
    times = measure.interleaved(rows, arguments.passes)
    each = {name: [x / IMAGES for x in values] for name, values in times.items()}
    table = measure.summary(each, 'released')
    print(f'ms an image, {IMAGES} of {SIZE} x {SIZE}, {THREADS} threads: median [least, most]')
    for name, row in table.items():
        print(f'{name:20} {row["ms"]:8.1f} [{row["least"]:.1f}, {row["most"]:.1f}]')
    measure.finish({'torch': torch.__version__, 'errors': errors, 'rows': table}, None)


if __name__ == '__main__':
    main()
