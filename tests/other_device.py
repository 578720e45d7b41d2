"""A second device without a card: "other", registered with torch as a backend of its own, whose
tensors hold real numbers on the CPU and refuse what CUDA's refuse: a CPU tensor beside them, and
`.numpy()`.

    python -m tests.other_device

drives every way into a network through it and prints each with what came of it: "ok" where the
numbers are the CPU's, else how far off they are or what was raised.
"""

from __future__ import annotations

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "other"
# CUDA too takes indices from the CPU, where what is indexed lies on the card
INDEXING = ("aten.index.Tensor", "aten.index_put", "aten._index_put_impl_")
# what makes tensors out of nothing; all else is made of these
FACTORIES = ("empty.memory_format", "empty_strided", "eye", "eye.m", "arange", "arange.start")
FACTORIES += ("arange.start_step",)
MOVING = ("aten._to_copy.default", "aten.copy_.default")


class Backend:
    """What torch asks of a backend's module: one device, no state."""

    def __getattr__(self, name: str):
        answers = {"device_count": 1, "current_device": 0, "is_available": True}
        answers |= {"is_initialized": True, "_is_in_bad_fork": False}
        answers |= {"get_amp_supported_dtype": [torch.bfloat16, torch.float16]}
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments: answers.get(name)


class Other(torch.Tensor):
    """A tensor on the second device; `plain` has its numbers."""

    plain: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, plain: torch.Tensor):
        shape = {"strides": plain.stride(), "storage_offset": plain.storage_offset()}
        place = {"dtype": plain.dtype, "device": f"{NAME}:0"}
        with torch.inference_mode(plain.is_inference()):  # a view is what its base is
            made = torch.Tensor._make_wrapper_subclass(cls, plain.shape, **shape, **place)
        made.plain = plain
        return made

    def __repr__(self):
        return f"Other({self.plain!r})"

    def numpy(self, *arguments, **options):
        raise TypeError(f"can't convert {NAME} device type tensor to numpy")

    __array__ = numpy

    def tolist(self):
        return self.plain.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        return computed(function, arguments, options or {})


def computed(function, arguments: tuple, options: dict):
    """An operation of torch on the numbers of its tensors; RuntimeError where CUDA would refuse."""
    name, target = str(function), options.get("device")
    if name == "aten._fused_sdp_choice.default":
        return 0  # attention by its plain formula: fused kernels are a device's own
    if name == "aten._has_compatible_shallow_copy_type.default":
        return False  # a weight that moves is a new tensor
    flat, _ = tree_flatten((arguments, options))
    others = [x for x in flat if isinstance(x, Other)]
    if name not in MOVING:
        refuse_mixed(name, arguments, flat, others)
    here = torch.device(target).type == NAME if target is not None else bool(others)
    if name == "aten.copy_.default":
        here = isinstance(arguments[0], Other)
    made = function(*tree_map(on_cpu, arguments), **tree_map(on_cpu, options))
    same = {id(x.plain): x for x in others}  # what works in place gives back its own tensor

    def placed(x):
        if not here or not isinstance(x, torch.Tensor):
            return x
        if id(x) not in same:
            return Other(x)
        if same[id(x)].shape != x.shape:
            raise NotImplementedError(f"{name} gives its output another shape")
        return same[id(x)]

    return tree_map(placed, made)


def refuse_mixed(name: str, arguments: tuple, flat: list, others: list) -> None:
    """RuntimeError where a CPU tensor (more than a number) meets one of the second device."""
    if name.startswith(INDEXING) and isinstance(arguments[0], Other):
        flat = [arguments[0], *arguments[2:]]
    plain = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, Other)]
    large = [tuple(x.shape) for x in plain if x.dim()]
    if others and large:
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {name} got cpu {large[:3]} beside"
            f" {NAME} {[tuple(x.shape) for x in others][:3]}"
        )


def on_cpu(x):
    """An argument as the CPU takes it."""
    if isinstance(x, Other):
        return x.plain
    if isinstance(x, torch.device) and x.type == NAME:
        return torch.device("cpu")
    return x


def copied(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """What `torch.tensor(..., device="other")` copies with."""
    on_cpu(target).copy_(on_cpu(source))
    return target


def register() -> None:
    """Make torch know the device, once a process; `.to("other")` and factories work from then
    on.
    """
    if hasattr(torch, NAME):
        return
    _setup_privateuseone_for_python_backend(NAME, Backend())
    library = torch.library.Library("aten", "IMPL")
    for name in FACTORIES:
        operation, _, overload = name.partition(".")
        function = getattr(getattr(torch.ops.aten, operation), overload or "default")

        def make(*arguments, function=function, **options):
            return computed(function, arguments, options)

        library.impl(name, make, "PrivateUse1")
    library.impl("_copy_from", copied, "PrivateUse1")
    # a parameter that two modules share stays one, as it does on a card
    torch.__future__.set_swap_module_params_on_conversion(True)
    autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    autocast.fallback(torch.library.fallthrough_kernel)  # it lowers no precision here
    register.libraries = library, autocast  # they go when nobody holds them
