"""Pickles and torch files of strangers: looked through before anything is built, so that they can
neither run code nor fill the memory.

A picture's file holds one tensor. `look_through` reads its opcodes without carrying them out and
refuses what no tensor needs; `unpickle` then builds tensors and nothing else.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._utils import _rebuild_tensor_v2

from vwsdlib.errors import VwsdError
from vwsdlib.paths import refuse_special

MOST_BYTES = 16 << 20  # of a file; a picture [3, 224, 224] of float64 has 1.2 MB
MOST_OPCODES = 10_000  # of a pickle; a tensor's has some 50
MOST_SHARED = 64  # look-ups in the memo: of 64 doublings of a tuple, none would come to an end
MOST_NUMBERS = 1 << 21  # of a tensor
MOST_DIMENSIONS = 8
SMALL = 1 << 16  # numbers up to it are no harm in the smallest file
MAGIC = 0x1950A86A20F9469CFC6C  # begins torch's older files
# What a dict of tensors is made of. BUILD, which sets attributes, also of permitted functions, is
# not among them.
OPCODES = frozenset(
    """PROTO FRAME STOP MARK POP EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG
    LONG1 BINFLOAT STRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES
    BINBYTES8 PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE
    BINPERSID""".split()
)
NO_PICTURE = "This is no preprocessed picture."


def read_whole(path: str | Path) -> bytes:
    """A picture's file; VwsdError where it cannot be read or is larger than any picture's."""
    path = Path(path)
    refuse_special(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            what = f"a file of {size >> 20} MB, a picture's has at most {MOST_BYTES >> 20}"
            raise VwsdError(what, path, NO_PICTURE)
        return path.read_bytes()
    except OSError as e:
        raise VwsdError(f"the file cannot be read: {e.strerror}", path, "Check the path.") from None


def look_through(data: bytes, where: object, pickles: int = 1, size: int = 0) -> None:
    """Read the opcodes of so many pickles one after another; VwsdError for what no tensor needs,
    and for numbers larger than the file.

    size: bytes of the whole file, where `data` are a part of it.
    """
    file, opcodes, shared, asked = io.BytesIO(data), 0, 0, 0
    most = max(size, len(data), SMALL)
    with _sound(where):
        for _ in range(pickles):
            for opcode, argument, _ in pickletools.genops(file):
                opcodes, shared = opcodes + 1, shared + opcode.name.endswith("GET")
                if opcode.name not in OPCODES:
                    raise refused(f"{opcode.name} in its pickle", where)
                if opcodes > MOST_OPCODES or shared > MOST_SHARED:
                    raise refused("a pickle of so many parts", where)
                if not isinstance(argument, int) or argument == MAGIC:
                    continue
                # a place in the memo, else anything
                enough = MOST_OPCODES if opcode.name.endswith("PUT") else most
                asked += abs(argument)
                # sizes, strides and bytes of one tensor together
                if abs(argument) > enough or asked > 8 * most:
                    much = f"{argument:,}" if abs(argument) < 1 << 64 else "more than 2^64"
                    raise refused(f"{much} places or bytes where {enough:,} would do", where)


@contextmanager
def _sound(where: object) -> Iterator[None]:
    """VwsdError for whatever pickle, zipfile and torch raise on damaged bytes: nearly anything."""
    try:
        yield
    except VwsdError:
        raise
    except Exception as e:
        what = f"not whole tensors ({type(e).__name__})"
        raise VwsdError(what, where, "Fetch the file again.") from None


def refused(name: str, where: object) -> VwsdError:
    """The error for what no tensor needs."""
    return VwsdError(
        f"the file asks for {name}, no tensor needs that; nothing was executed",
        where,
        "It may be hostile: load it by no other means.",
    )


def unpickle(data: bytes, where: object) -> object:
    """What a pickle holds, if it is nothing but tensors and containers of them."""
    look_through(data, where)
    with _sound(where):
        return _Tensors(data, where).load()


def load_torch(data: bytes, where: object) -> object:
    """What torch saved, if it is nothing but tensors and containers of them."""
    if data[:4] == b"PK\x03\x04":  # as torch tells them apart
        _look_through_zip(data, where)
    else:  # magic number, version, system, the object, names of its storages; then their bytes
        look_through(data, where, pickles=5)
    with _sound(where):
        try:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as e:
            name = re.search(r"GLOBAL ([\w.]+)", str(e))
            if name:
                raise refused(name.group(1), where) from None
            raise


def _look_through_zip(data: bytes, where: object) -> None:
    """The members are as torch writes them, not compressed and no larger than the file; their
    pickle is looked through.
    """
    with _sound(where), zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > len(data):
            raise refused("members that unpack to more than the file", where)
        for member in members:
            if member.filename.endswith(".pkl"):
                look_through(archive.read(member), where, size=len(data))


def dense(tensor: object, where: object) -> torch.Tensor:
    """A tensor that holds its numbers in the plain way, no more of them than MOST_NUMBERS, [any
    shape]; VwsdError for anything else. Nothing is copied.
    """
    if not isinstance(tensor, torch.Tensor):
        what = f"a {type(tensor).__name__} where a tensor is expected"
    elif tensor.is_quantized:
        what = "a quantised tensor, a dense one is expected"
    elif tensor.device.type == "meta":
        what = "a meta tensor, a dense one is expected"
    elif tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
        what = "a sparse or nested tensor, a dense one is expected"
    elif tensor.is_conj() or tensor.is_neg() or tensor.is_complex():
        what = "a tensor of complex or negated numbers"
    elif tensor.dim() > MOST_DIMENSIONS:
        what = f"a tensor of {tensor.dim()} dimensions"
    elif tensor.numel() > MOST_NUMBERS:
        what = f"a tensor of shape {tuple(tensor.shape)}, larger than any picture's"
    else:
        return tensor.detach()
    raise VwsdError(what, where, NO_PICTURE)


class _Tensors(pickle.Unpickler):
    """Builds dicts of tensors; whatever else a pickle names is refused before it is even
    imported."""

    def __init__(self, data: bytes, where: object):
        super().__init__(io.BytesIO(data))
        self.where = where
        self.known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            # torch's own would unpickle anything
            "torch.storage._load_from_bytes": lambda data: load_torch(data, where),
            # how protocol 2 spells bytes
            "_codecs.encode": lambda text, encoding: text.encode("latin1"),
        }

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full not in self.known:
            raise refused(full, self.where)
        return self.known[full]

    def _tensor(
        self, storage: object, offset: int, size: tuple, stride: tuple, *rest: object
    ) -> object:
        whole = all(type(number) is int and number >= 0 for number in (offset, *size, *stride))
        if not whole or len(size) != len(stride) or len(size) > MOST_DIMENSIONS:
            what = "a tensor whose offset, sizes or strides are no whole numbers"
            raise VwsdError(what, self.where, NO_PICTURE)
        # torch would lengthen the storage by whatever lies in memory
        reach = offset + 1 + sum((length - 1) * step for length, step in zip(size, stride))
        if 0 not in size and reach > _numbers_in(storage):
            what = f"a tensor of shape {size}, larger than its bytes"
            raise VwsdError(what, self.where, NO_PICTURE)
        if math.prod(size) > MOST_NUMBERS:
            what = f"a tensor of shape {size}, larger than any picture's"
            raise VwsdError(what, self.where, NO_PICTURE)
        return _rebuild_tensor_v2(storage, offset, size, stride, *rest)


def _numbers_in(storage: Any) -> int:
    """How many numbers a storage holds; 0 where it is none."""
    size = getattr(storage, "size", None)
    number: Any = size() if callable(size) else 0
    return int(number)
