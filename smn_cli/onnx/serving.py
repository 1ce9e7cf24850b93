"""Many adapters over one ONNX Runtime session, where neither torch nor timm has to be installed.

base = OnnxBase("onnx/")
steel = base.adapter("onnx/adapters/steel.safetensors")
features = base.run(numpy.stack([base.prepare(image) for image in images]), steel)
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smn_cli.adapters.array_rebuild import rebuild_arrays
from smn_cli.adapters.base_file import read_matching_base
from smn_cli.adapters.fingerprint import Fingerprint
from smn_cli.adapters.readout import StoredReadout
from smn_cli.adapters.stored import StoredAdapter, load_stored
from smn_cli.atomic import atomic_path
from smn_cli.errors import FileError, MismatchError, UsageError, first_few
from smn_cli.onnx.layout import CONFIG, CONFIG_SCHEMA, FEATURES, GRAPH, IMAGES, WEIGHTS
from smn_cli.recognise import read_json

if TYPE_CHECKING:
    import onnxruntime
    from PIL import Image


class OnnxAdapter:
    """The weights that an adapter changes, expanded; for the base that made it alone.

    Attributes:
        arrays: float32 by name, as the graph's inputs are called.
        stored: the adapter as it lies in its file.
    """

    def __init__(self, stored: StoredAdapter, arrays: dict[str, np.ndarray]) -> None:
        self.stored = stored
        self.arrays = arrays

    @property
    def nbytes(self) -> int:
        """Memory that it takes, expanded."""
        return sum(array.nbytes for array in self.arrays.values())

    @cached_property
    def values(self) -> "dict[str, onnxruntime.OrtValue]":
        """The same for a session that is fed by hand; they share the arrays' memory."""
        import onnxruntime

        return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self.arrays.items()}

    def readout(self, features: np.ndarray) -> np.ndarray:
        """(N, F) features to the (N, d) float32 numbers of the adapter's readout; compare them by cosine.

        Raises:
            UsageError: it carries none, or one that reads the stages, which the graph does not give.
            MismatchError: the features are of another width.
        """
        readout = self.stored.readout
        if readout is None or readout.reads_stages:
            what = "no readout" if readout is None else "a readout of the stages, which the graph does not give"
            raise UsageError(f"the adapter carries {what}: pack it with `readout` centred or whitened")
        return _read(readout, features)

    def save(self, path: str | Path) -> None:
        """Write it in ONNX Runtime's own adapter format, which `onnxruntime.LoraAdapter` maps into memory.

        Raises:
            OSError: the folder is missing or not writable.
        """
        import onnxruntime

        file = onnxruntime.AdapterFormat()
        file.set_adapter_version(1)
        file.set_model_version(1)
        file.set_parameters(self.values)
        with atomic_path(Path(path)) as temporary:
            file.export_adapter(str(temporary))


class OnnxBase:
    """A folder of `smn export`, opened: one session, and what its adapters are expanded over."""

    def __init__(
        self,
        folder: str | Path,
        *,
        session_options: "onnxruntime.SessionOptions | None" = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Open a session over the base.

        Args:
            folder: as `smn export` wrote it.
            session_options: ONNX Runtime's, such as the number of threads.
            providers: ONNX Runtime's execution providers.

        Raises:
            FileError: a file of the folder is missing or not what smn writes.
        """
        import onnxruntime

        self.folder = Path(folder)
        self.config = _read_config(self.folder / CONFIG)
        if session_options is None:
            session_options = onnxruntime.SessionOptions()
            session_options.log_severity_level = 3  # it warns of every input that has a default, which is the point
        try:
            self.session = onnxruntime.InferenceSession(
                str(self.folder / GRAPH), session_options, providers=list(providers)
            )
        except Exception as error:  # its errors have no class of their own
            raise FileError(f"{self.folder / GRAPH} cannot be opened: {' '.join(str(error).split())[:200]}") from None
        self.inputs = frozenset(each.name for each in self.session.get_overridable_initializers())

    def adapter(self, file: str | Path) -> OnnxAdapter:
        """Expand an adapter from its small file; base and result are checked against what the file recorded.

        Raises:
            AdapterFileError: missing, truncated, altered, or the result is not the recorded one.
            MismatchError: it is for another base, or changes weights that this graph holds fixed.
        """
        stored = load_stored(file)
        changed = [entry.name for entry in stored.header.masks] + [name for name, _ in stored.header.norm_stats]
        if fixed := [name for name in changed if name not in self.inputs]:
            raise MismatchError(
                f"{file} changes {first_few(fixed)}, fixed in {self.folder / GRAPH}: export it with this adapter"
            )
        arrays = rebuild_arrays(stored, self._base(stored.base_fingerprint, str(file)))
        if arrays is None:
            raise MismatchError(f"{file} changes tied weights or weights that are not float32: use smn apply")
        return OnnxAdapter(stored, {name: np.ascontiguousarray(arrays[name]) for name in changed})

    def run(self, images: np.ndarray, adapter: OnnxAdapter | None = None) -> np.ndarray:
        """Features (N, F) float32 of prepared images (N, 3, size, size) float32; without an adapter, the base's."""
        import onnxruntime

        feeds = {IMAGES: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images, dtype=np.float32))}
        given = {} if adapter is None else adapter.values
        (features,) = self.session.run_with_ort_values([FEATURES], {**feeds, **given})
        found: np.ndarray = features.numpy()
        return found

    def prepare(self, image: "Image.Image") -> np.ndarray:
        """An image of any mode to (3, size, size) float32, the same bits as `Adapter.transform` gives."""
        return prepare_image(image, self.config["preprocessing"])

    def _base(self, expected: Fingerprint, source: str) -> dict[str, np.ndarray]:
        base = read_matching_base(self.folder / WEIGHTS, expected)
        if base is None:
            raise MismatchError(
                f"{source} is for another base than {self.folder} ({expected.digest[:12]}... instead of "
                f"{self.config['base_digest'][:12]}...)"
            )
        return base


def prepare_image(image: "Image.Image", preprocessing: Mapping[str, Any]) -> np.ndarray:
    """An image of any mode to (3, size, size) float32, as `OnnxBase.prepare` does.

    Args:
        preprocessing: as `config.json` of an export has it.
    """
    from PIL import Image

    from smn_cli.data.images.decode import upright_rgb

    upright, size = upright_rgb(image), preprocessing["size"]
    short, long = sorted(upright.size)
    sides = [size if side == short else int(size * long / short) for side in upright.size]
    resampling = getattr(Image.Resampling, preprocessing["interpolation"].upper())
    resized = upright.resize((sides[0], sides[1]), resampling)
    left, top = (round((side - size) / 2) for side in resized.size)
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.float32)
    mean, std = (np.array(preprocessing[name], dtype=np.float32) for name in ("mean", "std"))
    return np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1))


def _read(readout: StoredReadout, features: np.ndarray) -> np.ndarray:
    if features.ndim != 2 or features.shape[1] != readout.num_features:
        raise MismatchError(f"the readout takes (N, {readout.num_features}) features: found {features.shape}")
    parts = {name: part.astype(np.float32) for name, part in readout.parts.items()}
    if readout.kind == "centred":
        return features - parts["mean"]
    rows: np.ndarray = features @ (parts["levels"] * parts["scales"][:, None]).T + parts["bias"]
    return rows


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: is it a folder of smn export? ({error})") from None
    if not isinstance(config, dict) or config.get("schema") != CONFIG_SCHEMA:
        raise FileError(f"{path} is not of smn export: expected schema {CONFIG_SCHEMA}")
    return config
