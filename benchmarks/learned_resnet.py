"""A ResNet whose weights were learned from scratch here, for benchmarks where no pretrained file is at hand.

    python benchmarks/learned_resnet.py --images cifar10/train --arch resnet50 --minutes 12 --out resnet50.safetensors

Cross-entropy on class folders at 32 px, flips and shifted crops, AdamW under a one-cycle schedule; as many steps as fit
into the minutes, told from the first ones. Far from ImageNet's weights, but its filters, its normalisation and so the
masks over it have the structure of learned ones, which random weights lack (timm starts every residual branch at zero).
"""

import argparse
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

BATCH, TIMED = 128, 10
MEAN_STD = 127.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    images, labels = read(options.images, options.size)
    model = timm.create_model(options.arch, num_classes=int(labels.max()) + 1).to(memory_format=torch.channels_last)
    train(model, images, labels, options.minutes * 60, options.lr)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, options.out)


def read(folder: Path, size: int) -> tuple[Tensor, Tensor]:
    """All images, uint8 (N, 3, size, size), and the number of each one's folder."""
    images, labels = [], []
    for label, path in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for file in sorted(path.iterdir()):
            image = decode_image(str(file), ImageReadMode.RGB)
            images.append(image if image.shape[1:] == (size, size) else resize(image, [size, size]))
            labels.append(label)
    return torch.stack(images), torch.tensor(labels)


def train(model: torch.nn.Module, images: Tensor, labels: Tensor, seconds: float, lr: float) -> None:
    """As many steps as fit; prints loss and accuracy over the last of them."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr / 10, weight_decay=0.05)
    schedule, started, num_steps = None, time.monotonic(), TIMED
    step, recent = 0, []
    while step < num_steps:
        chosen = torch.randint(len(images), (BATCH,))
        logits = model(views(images[chosen]))
        loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        recent.append((loss.item(), (logits.argmax(1) == labels[chosen]).float().mean().item()))
        step += 1
        if step == TIMED:
            num_steps = int(seconds / (time.monotonic() - started) * TIMED)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, num_steps, pct_start=0.2)
        elif schedule is not None:
            schedule.step()
        if step % 100 == 0 or step == num_steps:
            loss_now, right = torch.tensor(recent[-100:]).mean(0).tolist()
            print(f"step {step} of {num_steps}: loss {loss_now:.3f}, accuracy {right:.3f}", flush=True)


def views(images: Tensor) -> Tensor:
    """Flipped half of the time and shifted by up to an eighth, float32 from -1 to 1."""
    size = images.shape[-1]
    padded = functional.pad(images.float() / MEAN_STD - 1, [size // 8] * 4, mode="reflect")
    top, left = torch.randint(size // 4 + 1, (2,)).tolist()
    moved = padded[:, :, top : top + size, left : left + size]
    flipped = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, moved.flip(3), moved)
    return flipped.to(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
