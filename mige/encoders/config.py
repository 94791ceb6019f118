"""What a published encoder is, besides its weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from mige.checks import check_choice, check_count, check_counts, check_number, check_positive
from mige.encoders import ENCODERS
from mige.errors import InvalidInputError
from mige.normalization import NORMALIZERS

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The content of an encoder's `config.json`.

    Attributes:
        kind: a name in `mige.encoders.ENCODERS`.
        input_shape: (C, H, W) of one image.
        out_dim: width of the embedding.
        mean: of each channel, in units of [0, 1]; subtracted from the image.
        std: of each channel, in the same units; the image is divided by it.
        options: the encoder's own keyword arguments.
        normalize: a name in `mige.normalization.NORMALIZERS`, applied to the encoder's output.
        format_version: of the two files; only `FORMAT_VERSION` is understood.
    """

    kind: str
    input_shape: tuple[int, ...]
    out_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    normalize: str = "none"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION or isinstance(self.format_version, bool):
            raise InvalidInputError(
                f"format_version={self.format_version!r}: this version of mige reads "
                f"{FORMAT_VERSION}; use the version that wrote the encoder, or export it again"
            )
        check_choice("kind", self.kind, ENCODERS.keys())
        check_choice("normalize", self.normalize, NORMALIZERS.keys())
        check_count("out_dim", self.out_dim)
        if len(check_counts("input_shape", self.input_shape)) != 3:
            raise InvalidInputError(f"input_shape={self.input_shape!r}: give (C, H, W)")
        reserved = self.options.keys() & {"kind", "input_shape", "out_dim"}
        if reserved:
            raise InvalidInputError(f"options hold {sorted(reserved)}: give them beside options")
        # JSON has only lists; tuples make a configuration equal to its copy from a file.
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in self.options.items()}
        object.__setattr__(self, "options", options)
        _check_channels("mean", self.mean, self.input_shape[0], positive=False)
        _check_channels("std", self.std, self.input_shape[0], positive=True)

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "EncoderConfig":
        """Parse and check the text of `config.json`.

        Raises:
            InvalidInputError: it is not JSON, a key is missing or unknown, or a value is wrong.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise InvalidInputError(f"config.json is not JSON ({error}): fetch it again") from error
        if not isinstance(content, dict):
            raise InvalidInputError("config.json is not a JSON object: fetch it again")
        # The version first: another one may well have other keys.
        if content.get("format_version") != FORMAT_VERSION:
            raise InvalidInputError(
                f"config.json has format_version={content.get('format_version')!r}: this version "
                f"of mige reads {FORMAT_VERSION}; use the version that wrote the encoder"
            )
        expected = {entry.name for entry in fields(cls)}
        if content.keys() != expected:
            raise InvalidInputError(
                f"config.json lacks {sorted(expected - content.keys())} and has the unknown keys "
                f"{sorted(content.keys() - expected)}: fetch or export it again"
            )
        if not isinstance(content["options"], dict):
            raise InvalidInputError(f"options={content['options']!r}: give a JSON object")
        lists = ("input_shape", "mean", "std")
        for key in lists:
            if not isinstance(content[key], list):
                raise InvalidInputError(f"{key}={content[key]!r}: give a JSON list")
        return cls(**{**content, **{key: tuple(content[key]) for key in lists}})


def _check_channels(name: str, values: Sequence[float], channels: int, *, positive: bool) -> None:
    for value in values:
        check_positive(name, value) if positive else check_number(name, value)
    if len(values) != channels:
        raise InvalidInputError(f"{name}={values!r}: give {channels} numbers, one per channel")
