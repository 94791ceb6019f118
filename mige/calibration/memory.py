"""How much memory a call needs at its peak."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes that the tensors made by a call hold at the same time.

    On CUDA as the allocator counts it, workspaces of libraries included. Elsewhere the sum over
    live tensors, without what LAPACK allocates inside one operation.

    Args:
        call: what to run, once; its result is not kept.
        device: where its tensors live.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        held = int(torch.cuda.memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - held
    with _LiveTensors() as tensors:
        call()
    return int(tensors.peak)


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Adds up the storages that operations create, until each is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.peak = 0  # bytes
        self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        given = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _address(leaf) not in given:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:  # noqa: ANN401  (torch keeps one wrapper per storage)
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
