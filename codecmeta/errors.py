"""Errors of codecmeta.

CodecMetaError
├── UsageError          an argument is wrong                            (also a ValueError)
│   └── SamplingError   a frame specification is wrong or selects nothing
├── SourceError         a video cannot be read; carries a stable `code`
│   └── BitstreamError  the entropy-coded data of a picture is corrupt or uses an unsupported tool
├── MetaFormatError     an .npz is not a valid VideoMeta; carries the file and the field
└── OutputError         the output cannot be written                    (also an OSError)
    └── ConflictError   an object was written by someone else in the meantime
"""

from __future__ import annotations

from typing import Any, Literal

SourceCode = Literal[
    "unreadable",
    "not_a_file",
    "permission_denied",
    "format_refused",
    "no_video_stream",
    "decoder_missing",
    "encrypted",
    "limit_exceeded",
    "no_key_frame",
    "no_frames",
    "no_signal",
    "varying_geometry",
    "truncated",
    "damaged",
    "bitstream",
    "timeout",
    "crashed",
    "out_of_memory",
    "changed_while_reading",
    "output",
    "disk_full",
    "file_too_large",
    "io_error",
    "read_only",
    "network",
    "conflict",
    "usage",
    "internal",
]


class CodecMetaError(Exception):
    """Base of every error that codecmeta raises deliberately."""


class UsageError(CodecMetaError, ValueError):
    """Argument that is not allowed; the message states what was given and what is allowed."""


class SamplingError(UsageError):
    """Frame specification that cannot be understood or selects no frame of this video."""


class SourceError(CodecMetaError):
    """Video that cannot be read.

    Attributes:
        code: stable word for machines, one of `SourceCode`.
    """

    def __init__(self, code: SourceCode, message: str) -> None:
        super().__init__(message)
        self.code: SourceCode = code

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.code, str(self)))


class BitstreamError(SourceError):
    """Entropy-coded data of a picture that is corrupt, cut short, or uses an unsupported tool.

    Attributes:
        slice_index: slice within the picture, -1 before the first slice.
        macroblock: address of the macroblock (HEVC: coding tree unit) where reading failed, -1 outside slice data.
        unsupported: name of the coding tool when the stream is valid but not supported, else None.
    """

    def __init__(
        self, message: str, *, slice_index: int = -1, macroblock: int = -1, unsupported: str | None = None
    ) -> None:
        super().__init__("bitstream", message)
        self.slice_index = slice_index
        self.macroblock = macroblock
        self.unsupported = unsupported

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (str(self),), self.__dict__)


class OutputError(CodecMetaError, OSError):
    """Output folder, or its disk, that cannot be written."""


class ConflictError(OutputError):
    """Object that exists already, or is no longer the version that was read: another writer was first."""


class MetaFormatError(CodecMetaError):
    """.npz file that is not a valid VideoMeta.

    Attributes:
        path: the file, as given.
        field: name of the wrong array, or None when the file as a whole is wrong.
    """

    def __init__(self, path: str, field: str | None, message: str) -> None:
        where = f"{path}: {field}" if field else path
        super().__init__(f"{where}: {message}")
        self.path = path
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.path, self.field, self.message))
