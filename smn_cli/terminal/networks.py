"""From the options that name a network (--adapter, --run, --arch) to the network.

A new kind of file has its place here, in `open_networks`; how it gives features is known to `smn_cli.embedding`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from smn_cli.errors import ClashError, UsageError

if TYPE_CHECKING:
    from smn_cli.adapters.swap import Change
    from smn_cli.backbones.loading import Backbone
    from smn_cli.cascade.cascade import Cascade
    from smn_cli.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Networks:
    """A base and what changes it.

    Attributes:
        backbone: the base.
        preprocessing: of the images, for all of them.
        changes: by name, in the order of the options; none if the base or a cascade is asked for alone.
        cascade: instead of changes.
    """

    backbone: "Backbone"
    preprocessing: "Preprocessing"
    changes: "dict[str, Change]"
    cascade: "Cascade | None" = None


def check_choice(command: str, adapters: Sequence[Path], run: Path | None, arch: str | None) -> None:
    """Refuse options that name no network, or two.

    Raises:
        UsageError: they name none.
        ClashError: they name two.
    """
    if adapters and run is not None:
        raise ClashError("--adapter and --run both name the masks: give one of them", "adapter", ["run"])
    if not adapters and run is None and arch is None:
        raise UsageError(f"{command} needs --adapter FILE, --run RUN or, for a base alone, --arch NAME")


def open_networks(
    adapters: Sequence[Path], run: Path | None, arch: str | None, weights: Path | None, size: int | None
) -> Networks:
    """Load what the options name; of several adapters the first says which base and which preparation of images.

    Raises:
        ClashError: --arch is another network than the adapter's.
        UsageError: adapters work at different sizes and no size is given, or a cascade is not alone.
        AdapterFileError, CheckpointError, MismatchError, BackboneError: what is named is damaged or does not fit.
    """
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.backbones.names import full_name, is_called
    from smn_cli.cascade.schema import is_cascade
    from smn_cli.training.run_context import preprocessing_of

    if any(map(is_cascade, adapters)):
        networks = _with_cascade(adapters, weights)
    elif adapters:
        networks = _with_adapters(adapters, weights, size)
    elif run is not None:
        networks = _of_run(run, weights)
    else:
        backbone = load_backbone(str(arch), weights)
        return Networks(backbone, preprocessing_of(backbone, size or backbone.native_size), {})
    found = networks.backbone
    if arch is not None and not is_called(arch, found.arch, found.tag):
        words = f"--arch {arch} is not the adapter's {full_name(found.arch, found.tag)}: leave it out"
        raise ClashError(words, "arch", ["adapter", "run"])
    return replace(networks, preprocessing=replace(networks.preprocessing, size=size)) if size else networks


def _with_adapters(files: Sequence[Path], weights: Path | None, size: int | None) -> Networks:
    from smn_cli.adapters.adapter import load_adapter
    from smn_cli.rebuild import backbone_for

    adapters = [load_adapter(file) for file in files]
    prepared = [adapter.preprocessing for adapter in adapters]
    if size is not None:
        prepared = [replace(preprocessing, size=size) for preprocessing in prepared]
    for file, found in zip(files, prepared, strict=True):
        if found != prepared[0]:
            raise UsageError(
                f"--adapter {file} is for images of {found.size} px, {files[0]} for {prepared[0].size} px: scores are "
                "compared on the same images, so give --size"
            )
    return Networks(backbone_for(adapters[0], weights), prepared[0], dict(zip(_names(files), adapters, strict=True)))


def _with_cascade(files: Sequence[Path], weights: Path | None) -> Networks:
    from smn_cli.cascade.file import load_cascade
    from smn_cli.rebuild import backbone_for

    if len(files) > 1:
        raise UsageError(f"--adapter {files[1]} stands beside another one: a cascade is taken alone")
    cascade = load_cascade(files[0])
    return Networks(backbone_for(cascade.dispatcher, weights), cascade.dispatcher.preprocessing, {}, cascade)


def _of_run(run: Path, weights: Path | None) -> Networks:
    from smn_cli.runs.pack import change_of_run
    from smn_cli.runs.run_config import backbone_of_run, preprocessing_in
    from smn_cli.runs.run_folder import RunFolder

    folder = RunFolder.open(run)
    config = folder.read_config()
    backbone = backbone_of_run(config, weights)
    return Networks(backbone, preprocessing_in(config, folder), {_names([run])[0]: change_of_run(folder, backbone)})


def _names(paths: Sequence[Path]) -> list[str]:
    """A file's name without its ending, or its whole path where another one has that name.

    Raises:
        UsageError: a file is named twice.
    """
    twice = [str(path) for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise UsageError(f"--adapter {twice[0]} is given twice: give every file once")
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else str(path) for path in paths]
