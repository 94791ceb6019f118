"""A few inputs and their embeddings, published with every encoder, that tell whether it is intact.

`golden.json`: {"format_version": 1, "dtype": "uint8" | "float32", "inputs": nested lists
(n, C, H, W), "embeddings": nested lists (n, out_dim)}.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor

import mige
from jobs.errors import ArtifactInvalidError

GOLDEN_FILE = "golden.json"
FORMAT_VERSION = 1
NUM_INPUTS = 8
TOLERANCE = 1e-5  # absolute, and relative to the value

_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}


def make_golden(encoder: mige.LoadedEncoder, images: Tensor) -> str:
    """The content of `golden.json` for the first `NUM_INPUTS` of some images."""
    inputs = images[:NUM_INPUTS]
    return json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "dtype": str(inputs.dtype).removeprefix("torch."),
            "inputs": inputs.tolist(),
            "embeddings": encoder.embed(inputs).cpu().tolist(),
        }
    )


def check_golden(encoder: mige.LoadedEncoder, golden: str | bytes) -> None:
    """Embed the golden inputs again and compare.

    Args:
        encoder: as loaded from the published files.
        golden: the content of `golden.json`.

    Raises:
        ArtifactInvalidError: it is not a golden file, or the embeddings differ.
    """
    try:
        content = json.loads(golden)
        inputs = torch.tensor(content["inputs"], dtype=_DTYPES[content["dtype"]])
        expected = torch.tensor(content["embeddings"], dtype=torch.float32)
        found = encoder.embed(inputs).cpu()
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactInvalidError(
            f"{GOLDEN_FILE} does not fit the encoder: {error}.", "Export the encoder again."
        ) from error
    if found.shape != expected.shape or not torch.allclose(
        found, expected, rtol=TOLERANCE, atol=TOLERANCE
    ):
        raise ArtifactInvalidError(
            "The encoder does not reproduce its golden embeddings.", "Export the encoder again."
        )
