"""Networks in memory: each is loaded when it is first asked for, and let go when another needs the
room. A notebook walks through a dozen encoders, and one of them fits a card, not all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from threading import Lock
from weakref import WeakSet

import torch

from ..device import give_back, no_room, out_of_memory

BESIDE = 1 << 30  # bytes of networks that may stay loaded beside the one that is loaded next
_clock = count()


class Network:
    """A network that `load` puts on its device when it is called for, and again after it was let
    go.

    It is loaded outside inference mode, whoever asks: gradients (`relevance`) go through its
    weights. VwsdError, naming `what`, where the device's memory does not hold it.
    """

    def __init__(self, load: Callable[[], torch.nn.Module], what: str, device: str):
        self._load, self.what, self.device = load, what, device
        self._module: torch.nn.Module | None = None
        self._used, self._lock = 0, Lock()
        _networks.add(self)

    def __call__(self) -> torch.nn.Module:
        """The network, loaded; least recently used others go where they are more than BESIDE."""
        self._used = next(_clock)
        with self._lock:
            if self._module is None:
                make_room()
                self._module = self._loaded()
            return self._module

    def _loaded(self) -> torch.nn.Module:
        try:
            with torch.inference_mode(False):
                return self._load()
        except RuntimeError as e:
            if not out_of_memory(e):
                raise
            raise no_room(f"the network of {self.what}", self.device) from e

    @property
    def size(self) -> int:
        """Bytes of its weights; 0 where it is not loaded."""
        module = self._module
        if module is None:
            return 0
        return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))

    def let_go(self) -> None:
        """Forget the weights: they are loaded again when they are asked for."""
        self._module = None


_networks: WeakSet[Network] = WeakSet()


def make_room(beside: int = BESIDE) -> None:
    """Let go of networks, the least recently used first, until those that stay take at most
    `beside` bytes.
    """
    loaded = sorted((n for n in list(_networks) if n.size), key=lambda n: n._used)
    taken = sum(network.size for network in loaded)
    for network in loaded:
        if taken <= beside:
            break
        taken -= network.size
        network.let_go()
    give_back()
