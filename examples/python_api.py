"""The Python API: adapt a timm model to unlabeled images, ship the adapter, put it back on elsewhere.

    python examples/python_api.py IMAGES WEIGHTS OUT

IMAGES is a folder, WEIGHTS a pretrained checkpoint of EfficientNet-Lite0, OUT where the adapter goes.
"""

import sys
from typing import Any

import timm
import torch
from torch import nn

import smn_cli


def main(images: str, weights: str, out: str, **settings: Any) -> None:
    model: nn.Module = timm.create_model("tf_efficientnet_lite0", checkpoint_path=weights).eval()
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    # labels are never looked at; the model itself stays as it is, a copy of it is trained
    adapter = smn_cli.adapt(model, images, on_step=lambda report: print(report.step, f"{report.loss:.3f}"), **settings)
    smn_cli.save_adapter(adapter, out)
    print(adapter)

    # elsewhere: any model with the same pretrained weights
    fresh: nn.Module = timm.create_model("tf_efficientnet_lite0", checkpoint_path=weights).eval()
    probe = torch.rand(2, 3, 64, 64)
    loaded = smn_cli.load_adapter(out)
    with torch.inference_mode():
        before = fresh(probe)
        with loaded.applied(fresh):  # or loaded.apply(fresh), and later loaded.remove(fresh)
            during = fresh(probe)
        after = fresh(probe)
    print("adapted outputs differ from the base:", not torch.equal(before, during))
    print("removed again, bit for bit:", torch.equal(before, after))
    assert all(torch.equal(tensor, base[name]) for name, tensor in fresh.state_dict().items())


if __name__ == "__main__":
    main(*sys.argv[1:4])
