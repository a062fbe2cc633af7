"""What is known of one sampled frame beside its arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codecmeta.residual.source import SourceName

MotionOrigin: TypeAlias = Literal["bitstream", "decoder"]


@dataclass(kw_only=True)
class FrameRecord:
    """What is known of one sampled frame beside its arrays.

    Attributes:
        type: I, P, B or ?.
        source: where its residual came from, None without one; reasons: why earlier sources did not have it.
        vectors: its motion vectors, None where there are none; vectors_from: where they came from, None as long as
            nobody was asked.
        vectors_known: whether none means that nothing is predicted from another picture.
        carried_along: where the motion came from along which it carries, None if it does not.
        seen: it was decoded.
    """

    type: str = "?"
    source: SourceName | None = None
    reasons: dict[SourceName, str] = field(default_factory=dict)
    vectors: NDArray[np.int16] | None = None
    vectors_from: MotionOrigin | None = None
    vectors_known: bool = True
    carried_along: MotionOrigin | None = None
    seen: bool = False
