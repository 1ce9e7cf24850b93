"""A folder of an adapted network that timm, transformers and what is built on them load as it is."""

import json
from pathlib import Path

from torch import Tensor

from smn_cli.adapters.adapter import Adapter
from smn_cli.atomic import atomic_folder
from smn_cli.backbones.loading import Backbone
from smn_cli.backbones.timm_config import check_loaded, has_stages, timm_config
from smn_cli.file_rebuild import RebuiltNetwork
from smn_cli.publishing.metadata import front_matter
from smn_cli.publishing.place import CONFIG, PAGE, WEIGHTS, check_free
from smn_cli.publishing.templating import render
from smn_cli.rebuild import save_checkpoint


def write_folder(
    folder: Path,
    network: RebuiltNetwork[Tensor],
    adapter: Adapter,
    backbone: Backbone,
    *,
    file_digest: str,
    overwrite: bool = False,
) -> None:
    """Write weights, config and page, and see that timm loads them; the folder is complete or not there.

    Args:
        folder: not there or empty, or one written before.
        network: to write.
        adapter: that it was rebuilt with; says how images are to be prepared.
        backbone: that it was rebuilt over, fit to be run; becomes the adapted network.
        file_digest: SHA-256 of the file that the adapter came in, for the page.
        overwrite: whether a folder that was written before may be replaced.

    Raises:
        UsageError: see `check_free`.
        AdapterFileError: the adapter does not say how images are to be prepared.
        BackboneError: timm does not load the folder as the same network.
        OSError: it cannot be written.
    """
    check_free(folder, overwrite=overwrite)
    preprocessing = adapter.preprocessing
    config = timm_config(backbone, preprocessing, num_classes=network.num_classes, classes=network.classes)
    live = backbone.model
    live.load_state_dict({name: network.state[name] for name in live.state_dict()})
    with atomic_folder(folder, replaces=overwrite) as making:
        save_checkpoint(network, making / WEIGHTS)
        (making / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (making / PAGE).write_text(_page(folder, network, adapter, backbone, file_digest), encoding="utf-8")
        check_loaded(live, making, preprocessing.size)


def _page(folder: Path, network: RebuiltNetwork[Tensor], adapter: Adapter, backbone: Backbone, file_digest: str) -> str:
    images = adapter.header.provenance.get("images")
    return render(
        "folder.md.j2",
        front=front_matter(adapter, library="timm", licence=backbone.licence),
        name=folder.absolute().name,
        network=network,
        adapter=adapter,
        header=adapter.header,
        preprocessing=adapter.preprocessing,
        licence=backbone.licence,
        num_features=backbone.num_features,
        file_digest=file_digest,
        images=images if type(images) is int else None,  # a file may say anything there
        has_stages=has_stages(backbone),
        is_resized=adapter.preprocessing.size != backbone.native_size,
    )
