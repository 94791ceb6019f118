"""Published encoders as files: `config.json` beside `encoder.safetensors`; nothing is unpickled."""

import os
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mige.encoders import make_encoder
from mige.encoders.config import EncoderConfig
from mige.encoders.preprocessing import standardize_images
from mige.errors import InvalidInputError
from mige.normalization import make_normalizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "encoder.safetensors"

_MAX_HEADER_BYTES = 2**20
_MAX_CONFIG_BYTES = 2**20
_CHUNK = 256  # images at once in `embed`: bounds the memory of activations


class LoadedEncoder(nn.Module):
    """An encoder with everything between an image and its embedding, in eval mode.

    Args:
        encoder: maps standardised images to (n, out_dim).
        normalizer: what the encoder was trained with.
        config: describes both. Constructing this puts both modules in eval mode.
    """

    def __init__(self, encoder: nn.Module, normalizer: nn.Module, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.normalizer = normalizer
        self.config = config
        self.eval()

    def forward(self, images: Tensor) -> Float[Tensor, "n out_dim"]:
        """Embed images as `embed` does, but unchecked, in one piece and with gradients."""
        standard = standardize_images(images, mean=self.config.mean, std=self.config.std)
        z: Tensor = self.normalizer(self.encoder(standard))
        return z

    @torch.no_grad()
    def embed(self, images: Tensor) -> Float[Tensor, "n out_dim"]:
        """Embed images; a row depends on its own image only (to float32 rounding).

        Args:
            images: (n, C, H, W); uint8 in 0..255, or floating point in [0, 1]. n may be 0.

        Returns:
            float32 embeddings, on the encoder's device.

        Raises:
            InvalidInputError: the shape, dtype or range of `images` is wrong.
        """
        self._check_images(images)
        device = next(self.parameters()).device
        self.eval()
        parts = [self(chunk.to(device)) for chunk in torch.split(images, _CHUNK) if len(chunk)]
        return torch.cat(parts) if parts else torch.empty(0, self.config.out_dim, device=device)

    def _check_images(self, images: Tensor) -> None:
        shape = self.config.input_shape
        if images.ndim != 4 or tuple(images.shape[1:]) != tuple(shape):
            expected = ", ".join(map(str, shape))
            raise InvalidInputError(
                f"images have shape {tuple(images.shape)}: this encoder takes (n, {expected})"
            )
        if images.dtype == torch.uint8:
            return
        if not images.is_floating_point():
            raise InvalidInputError(
                f"images have dtype {images.dtype}: give uint8 in 0..255 or floats in [0, 1]"
            )
        if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
            raise InvalidInputError(
                "images hold values outside [0, 1] (or NaN): divide 0..255 values by 255 or give "
                "them as uint8; do not standardise, the encoder does"
            )


def save_encoder(
    encoder: nn.Module,
    config: EncoderConfig,
    directory: str | Path,
    *,
    normalizer: nn.Module | None = None,
) -> None:
    """Write `config.json` and `encoder.safetensors`, each whole or not at all.

    Args:
        encoder: the trained module, unwrapped from DDP.
        config: must describe `encoder` exactly.
        directory: created if missing.
        normalizer: the objective's; may be omitted where it has no state ("none", "sphere").

    Raises:
        InvalidInputError: the weights do not fit `config` or are not finite, or the normaliser is
            missing.
    """
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    if normalizer is not None:
        state |= {f"normalizer.{key}": value for key, value in normalizer.state_dict().items()}
    state = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    _check_state(state, _skeleton(config), "the encoder to save")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write_whole(directory / WEIGHTS_FILE, save(state))
    _write_whole(directory / CONFIG_FILE, config.to_json().encode())


def load_encoder(path: str | Path) -> LoadedEncoder:
    """Open a published encoder on the CPU.

    Args:
        path: the directory, or the safetensors file in it.

    Raises:
        InvalidInputError: a file is missing, damaged, of another version, or the weights do not fit
            the configuration.
    """
    path = Path(path)
    directory = path if path.is_dir() else path.parent
    weights = directory / WEIGHTS_FILE if path.is_dir() else path
    config_file = directory / CONFIG_FILE
    for file in (config_file, weights):
        if not file.is_file():
            raise InvalidInputError(
                f"{file} does not exist: give the folder of {CONFIG_FILE} and {WEIGHTS_FILE}"
            )
    if config_file.stat().st_size > _MAX_CONFIG_BYTES:
        raise InvalidInputError(f"{config_file} is larger than 1 MiB: it is not an encoder's")
    try:
        config = EncoderConfig.from_json(config_file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{config_file} is not UTF-8 text: fetch it again") from error
    state = _read_weights(weights)
    skeleton = _skeleton(config)
    _check_state(state, skeleton, str(weights))
    skeleton.load_state_dict(state, assign=True)
    return skeleton.requires_grad_(requires_grad=False)


def _skeleton(config: EncoderConfig) -> LoadedEncoder:
    """The modules of `config` without memory, so that no configuration can exhaust it."""
    try:
        with torch.device("meta"):
            shape, out_dim = config.input_shape, config.out_dim
            encoder = make_encoder(
                config.kind, input_shape=shape, out_dim=out_dim, **config.options
            )
            normalizer = make_normalizer(config.normalize, out_dim)
    except (RuntimeError, TypeError) as error:  # torch's words for sizes and types it cannot take
        raise InvalidInputError(f"no encoder can be built from {config}: {error}") from error
    return LoadedEncoder(encoder, normalizer, config)


def _read_weights(file: Path) -> dict[str, Tensor]:
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
    if header_bytes > _MAX_HEADER_BYTES:
        raise InvalidInputError(
            f"{file} announces a header of {header_bytes} bytes, more than 1 MiB: "
            "it is not an encoder's safetensors file; fetch it again"
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise InvalidInputError(
            f"{file} is not a whole safetensors file ({error}): fetch it again, verify its sha256"
        ) from error


def _check_state(state: dict[str, Tensor], skeleton: LoadedEncoder, source: str) -> None:
    """Compare keys, shapes, dtypes with those of `skeleton`, and look for NaN and infinity."""
    expected = skeleton.state_dict()
    if state.keys() != expected.keys():
        raise InvalidInputError(
            f"{source} lacks the tensors {sorted(expected.keys() - state.keys())[:5]} and has the "
            f"unexpected {sorted(state.keys() - expected.keys())[:5]}: the weights belong to "
            f"another configuration than {skeleton.config}"
        )
    for key, tensor in state.items():
        wanted = expected[key]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise InvalidInputError(
                f"{source}: {key} is {tensor.dtype} {tuple(tensor.shape)} where the configuration "
                f"says {wanted.dtype} {tuple(wanted.shape)}: export the encoder again"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidInputError(
                f"{source}: {key} holds NaN or infinity: the training diverged; "
                "publish an earlier checkpoint"
            )


def _write_whole(file: Path, content: bytes) -> None:
    """Write beside, flush to disk, rename."""
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
