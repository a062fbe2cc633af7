"""MeToM as one method: RPM before the encoder, BTM before and MATM inside the language model."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.errors import ConfigError
from compress.metom.btm import BTM
from compress.metom.matm import MATM
from compress.metom.rpm import RPM
from compress.stage import Compression, Signals, VideoSignals


@dataclass(frozen=True, init=False)
class MeToM(Attachable):
    """Metadata-guided token merging: ``MeToM(retention=0.3)``, or ``MeToM(rpm=RPM(tau=0.2), btm=BTM(window=4))``.

    Exactly the retention enters the language model, at its original positions; `literal` gives the letter of the paper.
    On a GPU the default stage before the encoder merges only where a map is named (``attach(..., map="texture")``): it
    was measured to cost time there. Any other `RPM` merges everywhere.

    The fields of `rpm`, `btm` and `matm` are fields of the whole, too: ``method.tau_tem`` is ``method.btm.tau_tem``.

    Args:
        retention: tokens that enter the language model, as a fraction of all, in (0, 1]; None for that of ``btm``.
        rpm: the stage before the encoder; None for its defaults, as for the next two.
        btm: the stage before the language model.
        matm: the stage inside the language model.
        shortcuts: fields of `RPM`, `BTM` and `MATM`, which take precedence over those of the stages that are given.

    Attributes:
        rpm: the stage before the encoder.
        btm: the stage before the language model.
        matm: the stage inside the language model.

    Raises:
        ConfigError: a field is outside its range, or a stage is of another kind.
        TypeError: no stage has a field of this name.
    """

    rpm: RPM
    btm: BTM
    matm: MATM

    def __init__(
        self,
        *,
        retention: float | None = None,
        rpm: RPM | None = None,
        btm: BTM | None = None,
        matm: MATM | None = None,
        **shortcuts: Any,
    ) -> None:
        if retention is not None:
            shortcuts["retention"] = retention
        for name, kind, given in (("rpm", RPM, rpm), ("btm", BTM, btm), ("matm", MATM, matm)):
            stage = kind() if given is None else given
            if not isinstance(stage, kind):
                raise ConfigError(f"{name} is {stage!r}; give {kind.__name__}(...), or its fields one by one")
            own = {field.name: shortcuts.pop(field.name) for field in fields(stage) if field.name in shortcuts}
            object.__setattr__(self, name, replace(stage, **own))
        if shortcuts:
            known = ", ".join(field.name for stage in (self.rpm, self.btm, self.matm) for field in fields(stage))
            raise TypeError(f"MeToM has no field {', '.join(map(repr, shortcuts))}; choose from {known}")

    @property
    def patches_by_default(self) -> bool:
        """Whether the stage before the encoder is the default one, which is left out where it costs time."""
        return self.rpm == RPM()

    @classmethod
    def literal(cls, **shortcuts: Any) -> MeToM:
        """Return MeToM to the letter of its paper: the budget an upper bound, positions renumbered without gaps.

        Args:
            shortcuts: see the class.
        """
        return cls(**{"refill": False, "positions": "contiguous", **shortcuts})

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name not in ("rpm", "btm", "matm"):
            for stage in (self.rpm, self.btm, self.matm):
                if hasattr(stage, name):
                    return getattr(stage, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def at_depth(self, depth: int, *, first: int = 1) -> MeToM:
        """See `MATM.at_depth`."""
        return replace(self, matm=self.matm.at_depth(depth, first=first))

    def plan_frames(self, meta: VideoSignals, *, tokens_per_frame: int) -> NDArray[np.int64]:
        """See `BTM.plan_frames`."""
        return self.btm.plan_frames(meta, tokens_per_frame=tokens_per_frame)

    def before_encoder(self, density: Tensor | NDArray[np.float32]) -> Compression:
        """See `RPM.before_encoder`."""
        return self.rpm.before_encoder(density)

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """See `BTM.before_llm`."""
        return self.btm.before_llm(tokens, signals)

    def inside_llm(self, scores: Tensor, hidden: Tensor) -> Compression:
        """See `MATM.inside_llm`."""
        return self.matm.inside_llm(scores, hidden)
