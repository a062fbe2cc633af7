"""An accelerator that is not there: tensors that say they are on CUDA, computed on the CPU.

Operations that mix devices fail as they would on the real one, `numpy` of such a tensor fails, and launches and waits
are counted. What it cannot show is the arithmetic of a GPU's kernels and their times.
"""

from __future__ import annotations

import collections
import re
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_flatten, tree_map

from compress.ops.graphs import RECORDERS, release_graphs
from compress.ops.greedy import KERNELS, _pick_in_loop

DEVICE = torch.device("lazy", 0)
"""Any device that builds of PyTorch without accelerators know by name, and ask for nothing more."""

FREE = frozenset(
    re.findall(
        r"\w+",
        "view _unsafe_view t transpose permute expand slice select narrow unsqueeze squeeze as_strided detach alias "
        "split split_with_sizes diagonal unbind chunk unfold lift_fresh empty empty_like new_empty empty_strided",
    )
)
"""Operations that launch nothing."""

WAITS = frozenset(("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "unique_consecutive"))
"""Operations that wait for the device, since the host needs their result; so does boolean indexing by `index`."""


class OnAccelerator(torch.Tensor):
    """A tensor that says it is on the accelerator."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnAccelerator:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            requires_grad=False,
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"OnAccelerator({self.held!r})"

    def tolist(self) -> Any:
        """Convert to a list, which subclasses of tensors cannot do themselves."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{function} outside Accelerator")


class Accelerator(TorchDispatchMode):
    """Within it, tensors can be moved to the accelerator.

    Attributes:
        launches: operations that start kernels there, by name.
        copies: from the host.
        waits: operations for which the host waits, by name; copies among them, unless the host asked not to wait.
        graphs: whether functions of repeated shapes are recorded, and replayed as one launch named ``graph``, and
            greedy picks are one launch named ``kernel``.
        recorded: launches within the recordings that were replayed.
    """

    def __init__(self, *, graphs: bool = False) -> None:
        super().__init__()
        self.launches: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self.copies = 0
        self.graphs = graphs
        self.recorded = 0

    def __enter__(self) -> Accelerator:
        if self.graphs:
            RECORDERS[DEVICE.type] = SimulatedRecorder(self)
            KERNELS[DEVICE.type] = self._pick
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        RECORDERS.pop(DEVICE.type, None)
        KERNELS.pop(DEVICE.type, None)
        release_graphs()

    def _pick(self, values: Any, nearest: Any, *options: Any) -> OnAccelerator:
        """Stand for the kernel of greedy picks."""
        self.launches["kernel"] += 1
        return OnAccelerator(_pick_in_loop(lambda one: values.held[one][0], nearest.held, *options))

    @staticmethod
    def current() -> Accelerator:
        """Return the one that is entered."""
        (found,) = [mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, Accelerator)]
        return found

    def reset(self) -> None:
        """Count from 0 again."""
        self.launches.clear()
        self.waits.clear()
        self.copies = self.recorded = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = function._schema.name.split("::")[1]
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        there = [one for one in tensors if isinstance(one, OnAccelerator)]
        here = [one for one in tensors if not isinstance(one, OnAccelerator)]
        target = kwargs.get("device")
        moves = name in ("_to_copy", "copy_")
        if there and not moves:
            # Index tensors and scalars of the host may meet tensors of the device, at the price of a copy.
            stray = [one for one in here if one.dim() > 0 and name not in ("index", "index_put_", "index_put")]
            if stray:
                raise RuntimeError(f"{name} mixes devices: {[tuple(one.shape) for one in stray]} on the CPU")
            self.copies += len(here) if name.startswith("index") else 0
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        to_there = bool(there) if target is None else torch.device(target).type == DEVICE.type
        if name == "copy_":
            to_there = isinstance(args[0], OnAccelerator)
        self._count(name, args, kwargs, there=there, to_there=to_there, moves=moves)
        plain_args, plain_kwargs = tree_map(_held, (args, kwargs))
        result = function(*plain_args, **plain_kwargs)
        if name.endswith("_") and not name.endswith("__"):
            return args[0]
        return tree_map(_there, result) if to_there else result

    def _count(self, name: str, args: Any, kwargs: Any, *, there: list[Any], to_there: bool, moves: bool) -> None:
        if not there and not to_there:
            return
        if moves and to_there != bool(there):
            self.copies += to_there
            # From memory that is not pinned, a copy that may not be waited for is one that returns when it is staged.
            if not to_there or not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])):
                self.waits[name] += 1
            return
        masks = name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])
        # CUDA makes a number that is assigned by an index on the host, copies it to the device and waits for that.
        number = name.startswith("index_put") and args[2].dim() == 0
        if name in WAITS or masks or number:
            self.waits[name] += 1
        if name not in FREE:
            self.launches[name] += 1


class SimulatedRecorder:
    """Recordings of the simulated accelerator; a function that copies from the host or waits cannot be recorded."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def stream(self, device: torch.device) -> int:
        return 0

    def record(self, function: Any, tensors: Any) -> Any:
        held = [tensor.clone() for tensor in tensors]
        inside = self._run_counted(function, held)[1]

        def replay(tensors: Any) -> Any:
            for kept, tensor in zip(held, tensors, strict=True):
                kept.copy_(tensor)
            result, _ = self._run_counted(function, held)
            self.accelerator.launches["graph"] += 1
            self.accelerator.recorded += inside
            return result

        return replay

    def _run_counted(self, function: Any, held: Any) -> tuple[Any, int]:
        """Run without adding to the counts; return also how many launches it had."""
        one = self.accelerator
        before = one.launches, one.waits, one.copies, one.recorded
        one.launches, one.waits, one.copies = collections.Counter(), collections.Counter(), 0
        try:
            result = function(*held)
            if one.waits or one.copies:
                raise RuntimeError(f"recording with {one.copies} copies from the host and waits for {dict(one.waits)}")
            return result, one.launches.total()
        finally:
            one.launches, one.waits, one.copies, one.recorded = before


def _held(one: Any) -> Any:
    return one.held if isinstance(one, OnAccelerator) else one


def _there(one: Any) -> Any:
    return OnAccelerator(one) if isinstance(one, torch.Tensor) else one
