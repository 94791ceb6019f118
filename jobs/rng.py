"""The state of a process's random generators as one row of bytes, and back.

Covers torch (CPU and CUDA), numpy and Python. JSON, padded with spaces to a fixed length, so that
the rows of several workers fit into one tensor.
"""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

STATE_BYTES = 32_768


def seed_all(*entropy: int) -> None:
    """Seed all generators of this process from several numbers, such as seed and rank."""
    streams = np.random.SeedSequence(entropy).generate_state(3, np.uint32)
    torch.manual_seed(int(streams[0]))  # CUDA's generators included
    np.random.seed(int(streams[1]))
    random.seed(int(streams[2]))


def capture_rng() -> Tensor:
    """The state of all generators: (STATE_BYTES,) uint8."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    state = {
        "python": [version, list(words), gauss],
        "numpy": numpy_state | {"state": _listed(numpy_state["state"])},
        "torch": _encoded(torch.get_rng_state()),
        "cuda": _encoded(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
    }
    text = json.dumps(state).encode().ljust(STATE_BYTES)
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def restore_rng(row: Tensor) -> None:
    """Put all generators back to what `capture_rng` saw.

    Raises:
        ValueError: the row is not such a state.
    """
    state = json.loads(row.cpu().numpy().tobytes())
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    inner = state["numpy"]["state"]
    key = np.array(inner["key"], dtype=np.uint32)
    np.random.set_state(state["numpy"] | {"state": {"key": key, "pos": inner["pos"]}})
    torch.set_rng_state(_decoded(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_decoded(state["cuda"]))


def _listed(inner: dict[str, Any]) -> dict[str, Any]:
    return {"key": inner["key"].tolist(), "pos": inner["pos"]}


def _encoded(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decoded(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
