"""A network cut in two before a block: its trunk, and what comes after, fed with what the trunk gave.

No family is known by name. A pass over one image shows which modules have done their work when the block begins. In the
late part they give back what they gave then, at no cost, and the block takes activations in place of what they lead to.
Whether that is still the network is tried: its features have to be equal bit for bit. They are not where something else
of the image goes around the cut.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from smn_cli.backbones.structure import block_names
from smn_cli.errors import BackboneError
from smn_cli.masking.backbone import run_backbone
from smn_cli.seeding import fixed_generator

NUM_TRIED = 2
"""Images that a cut is tried with: one alone would not show what depends on the number of images."""


class CutNetwork:
    """A network as two functions, of which the second takes what the first gives. Get one from `cut_before_trained`.

    Args:
        model: the network, which stays as it is: what is put on it goes when a function ends.
        block: name of the first block of the late part, called once, with activations first.
        image: (1, 3, size, size), on the device; any content.
        outputs: what the trunk's modules gave for it.
        num_activations: of one image, before the block.
        share: of a forward pass's operations that are the trunk's, 0 to 1.
    """

    def __init__(
        self,
        model: nn.Module,
        block: str,
        image: Tensor,
        outputs: Sequence[tuple[nn.Module, Any]],
        *,
        num_activations: int,
        share: float,
    ) -> None:
        self.model, self.block = model, block
        self.num_activations, self.share = num_activations, share
        self._image, self._outputs = image, outputs

    def trunk(self, images: Tensor) -> Tensor:
        """Activations (B, ...) before the block, of images (B, 3, size, size); nothing after it is computed."""
        found: list[Tensor] = []

        def stop(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(inputs[0])
            raise _Reached

        handle = self.model.get_submodule(self.block).register_forward_pre_hook(stop)
        try:
            self.model(images)
        except _Reached:
            return found[0]
        finally:
            handle.remove()
        raise BackboneError(f"{type(self.model).__name__} never calls {self.block}")

    def late(self, activations: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Features (B, F) of what `trunk` gave, under effective weights of the late part by first names."""
        with self._fed(activations):
            return run_backbone(self.model, self._image, weights)

    @contextmanager
    def _fed(self, activations: Tensor) -> Iterator[None]:
        def feed(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (activations, *inputs[1:])

        handle = self.model.get_submodule(self.block).register_forward_pre_hook(feed)
        with ExitStack() as after:
            after.callback(handle.remove)
            for module, output in self._outputs:
                after.enter_context(_giving(module, output))
            yield


def cut_before_trained(model: nn.Module, names: Sequence[str], size: int) -> CutNetwork:
    """A network cut before the first of its blocks in which a gradient is needed.

    Args:
        model: a timm network, in eval mode, on its device.
        names: of the parameters that are trained.
        size: side of the images, in pixels.

    Raises:
        BackboneError: there is no block before it, or no clean cut; the message says why, to end a sentence with.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, size, size, device=device)
    calls = _Calls()
    weights = {name: model.get_parameter(name).detach().requires_grad_() for name in names}
    with torch.inference_mode(False), torch.enable_grad(), calls.watching(model):
        run_backbone(model, image, weights)
    block = _first_trained(model, calls)
    outputs = {id(module): (module, calls.outputs[id(module)]) for module in _before(model, calls, block)}
    entry = model.get_submodule(block)
    share = calls.work_before(entry) / max(1, calls.work_before(None))
    num_activations = calls.inputs[id(entry)][0].numel()
    cut = CutNetwork(model, block, image, list(outputs.values()), num_activations=num_activations, share=share)
    _check(cut, size)
    return cut


class _Reached(Exception):
    """The block begins; nothing of it is wanted."""


class _Calls:
    """In which order modules begin and end, what they take and give, what was computed before; by `id` of a module."""

    def __init__(self) -> None:
        self.begins: dict[int, list[int]] = {}
        self.ends: dict[int, list[int]] = {}
        self.inputs: dict[int, tuple[Any, ...]] = {}
        self.outputs: dict[int, Any] = {}
        self._time = 0
        self._counter = FlopCounterMode(display=False)
        self._work: dict[int, int] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as after:
            for module in model.modules():
                after.callback(module.register_forward_pre_hook(self._begin).remove)
                after.callback(module.register_forward_hook(self._end).remove)
            after.enter_context(self._counter)
            yield

    def work_before(self, module: nn.Module | None) -> int:
        """Operations until a module began, or of all."""
        return int(self._counter.get_total_flops()) if module is None else self._work[id(module)]

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._time += 1
        self.begins.setdefault(id(module), []).append(self._time)
        self.inputs[id(module)] = inputs
        self._work[id(module)] = int(self._counter.get_total_flops())

    def _end(self, module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        self._time += 1
        self.ends.setdefault(id(module), []).append(self._time)
        self.outputs[id(module)] = output


def _first_trained(model: nn.Module, calls: _Calls) -> str:
    names = block_names(model)
    if not names:
        raise BackboneError(f"{type(model).__name__} names no blocks to cut between")
    for name in names:
        key = id(model.get_submodule(name))
        if len(calls.begins.get(key, ())) != 1:
            raise BackboneError(f"{type(model).__name__} does not call {name} once as a whole")
        if not _needs_gradient(calls.outputs[key]):
            continue
        first = calls.inputs[key][0] if calls.inputs[key] else None
        if name == names[0] or not isinstance(first, Tensor) or first.requires_grad:
            raise BackboneError(f"no block before {name} is left whole")
        return name
    raise BackboneError("no block is trained")


def _needs_gradient(output: Any) -> bool:
    if isinstance(output, Tensor):
        return output.requires_grad
    return isinstance(output, tuple | list) and any(map(_needs_gradient, output))


def _before(module: nn.Module, calls: _Calls, block: str, start: int | None = None) -> Iterator[nn.Module]:
    """The largest modules that are called once and are done when the block begins."""
    start = calls.begins[id(module.get_submodule(block))][0] if start is None else start
    for child in module.children():
        ends = calls.ends.get(id(child), [])
        if len(ends) == 1 and ends[0] < start:
            yield child
        else:
            yield from _before(child, calls, block, start)


def _check(cut: CutNetwork, size: int) -> None:
    device = next(cut.model.parameters()).device
    images = torch.randn(NUM_TRIED, 3, size, size, generator=fixed_generator()).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    what = f"{type(cut.model).__name__} cannot be cut before {cut.block}"
    with torch.inference_mode(False), torch.no_grad():
        whole = cut.model(images)
        try:
            found = cut.late(cut.trunk(images), {})
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackboneError(f"{what} ({reason})") from None
    if not torch.equal(found, whole):
        raise BackboneError(f"{what}: more of an image goes around it")


@contextmanager
def _giving(module: nn.Module, output: Any) -> Iterator[None]:
    """Inside, a module computes nothing and gives what it once gave; what else stands in its place comes back after."""
    before: Callable[..., Any] | None = module.__dict__.get("forward")
    module.forward = lambda *_args, **_kwargs: output
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
