"""Write the expected values of test_resnet.py. This needs torch and torchvision; the tests do not.

python -m tests.golden_resnet
"""

import json

import torch
import torchvision
from test_resnet import GOLDEN, at_places, images, seeded


def main() -> None:
    """Write GOLDEN."""
    network = torchvision.models.resnet50().eval()
    shapes = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    weights = {name: torch.from_numpy(seeded(name, shape)) for name, shape in shapes.items()}
    network.load_state_dict(weights, strict=False)
    first = torch.nn.Sequential(network.conv1, network.bn1, network.relu)  # without max pooling
    stages = (first, network.layer1, network.layer2, network.layer3, network.layer4)
    x, features = torch.from_numpy(images()).permute(0, 3, 1, 2), []
    with torch.no_grad():
        for stage in stages:
            x = stage(x)
            features.append(at_places(x.permute(0, 2, 3, 1).numpy()).tolist())
    GOLDEN.write_text(json.dumps({'shapes': shapes, 'features': features}))


if __name__ == '__main__':
    main()
