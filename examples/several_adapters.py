"""Two adapters over one network: adapt, compute in a `with`, switch, copy, and take them off again.

    python examples/several_adapters.py ARCH WEIGHTS IMAGES OTHER_IMAGES

ARCH is timm's name of a network, WEIGHTS its pretrained checkpoint; the images lie in two folders, without labels.
"""

import copy
import sys
from typing import Any

import timm
import torch
from torch import nn

import smn_cli


def main(arch: str, weights: str, images: str, other_images: str, **settings: Any) -> None:
    model: nn.Module = timm.create_model(arch, checkpoint_path=weights).eval()
    adapters = smn_cli.AdapterSet(model)
    adapters.add("first", smn_cli.adapt(model, images, **settings))  # the model itself is left as it is
    adapters.add("second", smn_cli.adapt(model, other_images, **settings))
    print(adapters)

    found = smn_cli.embed(model, images, size=64)
    probe = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        base = model(probe)
        with adapters.using("first"):
            first = model(probe)
        adapters.use("second")
        second = model(probe)
        twin = copy.deepcopy(model)  # as it is now, with the second adapter on
        adapters.off()
        print("the base is back, bit for bit:", torch.equal(model(probe), base))
        print("three networks in one:", not torch.equal(base, first) and not torch.equal(first, second))
        print("the copy keeps its adapter:", torch.equal(twin(probe), second))
        print("until it is taken off:", torch.equal(smn_cli.remove_adapter(twin)(probe), base))
    print(f"features {tuple(found.features.shape)} of {len(found.paths)} images")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:5])
    except smn_cli.SmnError as error:
        sys.exit(f"{error}")
