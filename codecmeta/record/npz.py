""".npz format of a VideoMeta: strict reader, atomic writer.

A file may come from anywhere. Every member's header is read and checked against the dtypes and shapes of fields.py
before any array is allocated; nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from codecmeta.errors import MetaFormatError
from codecmeta.record.atomic_file import replace_file
from codecmeta.record.fields import FIELDS, PAIRS, REQUIRED, Array, check, check_headers, check_values
from codecmeta.record.jpeg import frames_shape
from codecmeta.record.orientation import Orientation, display_aspect
from codecmeta.storage.address import is_url
from codecmeta.storage.objects import read_object
from codecmeta.storage.opening import open_whole

SCHEMA = 3
"""Newest schema that is read. Records without JPEG are written as `_WITHOUT_JPEG`, which older versions read."""
_WITHOUT_JPEG = 2
MAX_BYTES = 8 << 30
MAX_INFO_CHARACTERS = 1 << 22
MAX_MEMBERS = 256
# A deflated file may expand freely up to this, and beyond it only to a multiple of its own size.
FREE_BYTES = 256 << 20
MAX_RATIO = 100
_DIRECTORY_BYTES, _HEADER_BYTES = 16 << 10, 1 << 10
"""Bytes that hold the directory of a record of ours, and the headers of a member."""

# Errors that zipfile raises for files that are no archive, or damaged ones.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, struct.error)
# Errors that NumPy's parser of array headers raises.
_UNPARSABLE = (ValueError, TypeError, KeyError, SyntaxError, RecursionError, tokenize.TokenError)


def write(path: str | os.PathLike[str], info: Mapping[str, Any], arrays: Mapping[str, Array], *, deflate: bool) -> None:
    """Write a VideoMeta to a temporary file next to `path`, flush it to the disk and rename it.

    Raises:
        OSError: the file cannot be written; no temporary file is left.
        MetaFormatError: an array violates the format.
    """
    members = _prepare(os.fspath(path), info, arrays)
    with replace_file(path) as file:
        _write_archive(file, members, deflate=deflate)


def encode(name: str, info: Mapping[str, Any], arrays: Mapping[str, Array], *, deflate: bool) -> bytes:
    """Return the bytes that `write` writes, for a store of whole objects; messages call the record `name`.

    Raises:
        MetaFormatError: an array violates the format.
    """
    buffer = io.BytesIO()
    _write_archive(buffer, _prepare(name, info, arrays), deflate=deflate)
    return buffer.getvalue()


def _prepare(name: str, info: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return all members of the archive after checking them."""
    text = json.dumps(info, ensure_ascii=True, allow_nan=False, sort_keys=True)
    if len(text) > MAX_INFO_CHARACTERS:
        raise MetaFormatError(name, "info", f"has {len(text)} characters; at most {MAX_INFO_CHARACTERS} fit")
    checked = {field: _little_endian(array) for field, array in arrays.items()}
    check(name, dict(info), checked)
    schema = SCHEMA if "frames_jpeg" in checked else _WITHOUT_JPEG
    return {"schema": np.array(schema, "<i4"), "info": np.array(text), **checked}


def _write_archive(file: BinaryIO, members: Mapping[str, Array], *, deflate: bool) -> None:
    method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method, allowZip64=True) as archive:
        for name, array in members.items():
            # JPEG is compressed already
            _write_member(archive, name, array, zipfile.ZIP_STORED if name == "frames_jpeg" else method)
        total = sum(entry.file_size for entry in archive.infolist())
        short = -(-total // MAX_RATIO) - file.tell()
        if total > FREE_BYTES and short > 0:
            # flat pictures compress up to a thousand times: a file must be larger than that to count as a bomb
            _write_member(archive, "padding", np.zeros(short, np.uint8), zipfile.ZIP_STORED)


def _write_member(archive: zipfile.ZipFile, name: str, array: Array, method: int) -> None:
    # a fixed date keeps equal records byte-identical
    entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = method
    with archive.open(entry, "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def read(
    path: str | os.PathLike[str], *, max_bytes: int, names: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read and validate a file written by `write`.

    Args:
        path: the file.
        max_bytes: refuse a file whose arrays take more memory than this.
        names: the optional arrays to read, with those that they come in pairs with; None for all.

    Returns:
        `info` and the arrays; unknown members are ignored.

    Raises:
        MetaFormatError: anything is wrong with the file.
        OSError: it cannot be opened.
    """
    if is_url(path) and names is not None:
        return _read_ranges(path, max_bytes, names)
    if is_url(path):
        data = read_object(path, most_bytes=max_bytes + MAX_INFO_CHARACTERS)
        return read_from(io.BytesIO(data), path, size=len(data), max_bytes=max_bytes, names=names)
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        return read_from(file, os.fspath(path), size=size, max_bytes=max_bytes, names=names)


def _read_ranges(url: str, max_bytes: int, names: Collection[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read an object by ranges: the directory at its end, then, several at a time, what is wanted of each member."""
    with open_whole(url) as (file, source):
        source.prefetch([(source.size - _DIRECTORY_BYTES, source.size)])
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()[:MAX_MEMBERS]
        except _UNREADABLE as error:
            raise MetaFormatError(url, None, f"not a readable .npz ({error})") from error
        wanted = {"schema", "info", *REQUIRED, *_with_partners(names)}
        source.prefetch(
            (entry.header_offset, entry.header_offset + _HEADER_BYTES + entry.compress_size * (name in wanted))
            for entry in entries
            if (name := entry.filename.removesuffix(".npy"))
        )
        return read_from(file, url, size=source.size, max_bytes=max_bytes, names=names)


def read_from(
    file: IO[bytes] | io.RawIOBase, name: str, *, size: int, max_bytes: int, names: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read `read` from an open file of `size` bytes, which messages call `name`."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(name, archive, size, max_bytes, names)
    except MetaFormatError:
        raise
    except _UNREADABLE as error:
        raise MetaFormatError(name, None, f"not a readable .npz ({error})") from error


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    # opening a pipe would block until a writer appears
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise MetaFormatError(os.fspath(path), None, "a folder; give one .npz of it, or open_dataset all of them")
    if not stat.S_ISREG(mode):
        raise MetaFormatError(os.fspath(path), None, "not a regular file")
    return Path(path).open("rb")


def _read_archive(
    path: str, archive: zipfile.ZipFile, file_size: int, max_bytes: int, names: Collection[str] | None
) -> tuple[dict[str, Any], dict[str, Array]]:
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise MetaFormatError(path, None, f"{len(entries)} members; at most {MAX_MEMBERS} are allowed")
    known = {"schema", "info", *FIELDS}
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name in members:
            raise MetaFormatError(path, name, "appears twice")
        if name in known:
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
                raise MetaFormatError(path, name, "must be stored or deflated, and not encrypted")
            members[name] = entry
    total = sum(entry.file_size for entry in members.values())
    allowed = min(max_bytes, max(FREE_BYTES, MAX_RATIO * file_size))
    if total > allowed:
        raise MetaFormatError(path, None, f"expands to {total} bytes; at most {allowed} are allowed for it")
    for name in ("schema", "info", *REQUIRED):
        if name not in members:
            raise MetaFormatError(path, name, "is missing")
    schema = int(_read_member(path, archive, members["schema"], "schema", "<i4", ())[()])
    if not 1 <= schema <= SCHEMA:
        hint = "upgrade codecmeta to read it" if schema > SCHEMA else "extract the video again"
        raise MetaFormatError(path, "schema", f"is {schema}; this version reads 1 to {SCHEMA}; {hint}")
    info = _read_info(path, archive, members["info"])
    if schema == 1:
        info = _upgrade(path, info)
    headers = {name: _read_header(path, archive, members[name], name)[:2] for name in FIELDS if name in members}
    check_headers(path, info, headers)
    arrays = {
        name: _read_member(path, archive, members[name], name, FIELDS[name].dtype, shape)
        for name, (_, shape) in headers.items()
        if names is None or name in REQUIRED or name in _with_partners(names)
    }
    check_values(path, arrays)
    if "frames_jpeg" in arrays:
        size = math.prod(frames_shape(arrays["frames_jpeg"], arrays["frames_jpeg_offset"]))
        if total + size > max_bytes:
            raise MetaFormatError(path, "frames_jpeg", f"expand to {size} bytes; at most {max_bytes} are allowed")
    return info, arrays


def _with_partners(names: Collection[str]) -> set[str]:
    """Return the given names of arrays, and those that are stored together with them, or in their place."""
    if "frames" in names:
        names = {*names, "frames_jpeg"}
    return {*names, *(name for pair in PAIRS for name in pair if set(pair) & set(names))}


def _read_info(path: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> dict[str, Any]:
    dtype, shape, _ = _read_header(path, archive, entry, "info")
    if dtype.kind != "U" or shape != () or dtype.itemsize > 4 * MAX_INFO_CHARACTERS:
        raise MetaFormatError(path, "info", f"must be one string of at most {MAX_INFO_CHARACTERS} characters")
    text = str(_read_member(path, archive, entry, "info", dtype.str, ())[()])
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetaFormatError(path, "info", f"is not JSON ({error})") from error
    if not isinstance(info, dict):
        raise MetaFormatError(path, "info", "must be a JSON object")
    return info


def _upgrade(path: str, info: dict[str, Any]) -> dict[str, Any]:
    """Convert `info` of schema 1 to this one: the rotation becomes a matrix, the display aspect is stated."""
    try:
        stream = dict(info["stream"])
        rotation, width, height = stream.pop("rotation"), stream["width"], stream["height"]
        if type(rotation) is not int or rotation % 90:
            raise ValueError(f"rotation is {rotation}; it must be a multiple of 90")
        orientation = Orientation.from_rotation(rotation)
        stream["orientation"] = orientation.matrix(width=width, height=height)
        sample_aspect = stream.get("sar") and tuple(stream["sar"])
        stream["display_aspect"] = list(
            display_aspect(width, height, orientation=orientation, sample_aspect=sample_aspect)
        )
    except KeyError as error:
        raise MetaFormatError(path, "info", f"lacks {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise MetaFormatError(path, "info", f"is wrong: {error}") from error
    return {**info, "stream": stream}


def _read_header(
    path: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str
) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Read dtype, shape and header length of a member, and check them against its size."""
    with archive.open(entry) as member:
        try:
            version = np.lib.format.read_magic(member)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(member, max_header_size=10_000)
            elif version == (2, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(member, max_header_size=10_000)
            else:
                raise ValueError(f"version {version}")
        except _UNPARSABLE as error:
            raise MetaFormatError(path, name, f"is not a .npy array ({error})") from error
        header = member.tell()
    if dtype.hasobject or dtype.fields is not None:
        raise MetaFormatError(path, name, f"has dtype {dtype}, which is not allowed")
    if fortran and len(shape) > 1:
        raise MetaFormatError(path, name, "is in Fortran order; C order is required")
    count = 1
    for length in shape:
        if length < 0:
            raise MetaFormatError(path, name, f"has shape {shape}")
        count *= length
    if header + count * dtype.itemsize != entry.file_size:
        raise MetaFormatError(path, name, f"declares {shape} of {dtype}, but holds {entry.file_size - header} bytes")
    return dtype, shape, header


def _read_member(
    path: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, dtype: str, shape: tuple[int, ...]
) -> Array:
    found, found_shape, header = _read_header(path, archive, entry, name)
    if found.str != dtype or found_shape != shape:
        raise MetaFormatError(path, name, f"is {found.str} {found_shape}; expected {dtype} {shape}")
    array = np.empty(shape, found)
    target = array.reshape(-1).view(np.uint8).data.cast("B")
    with archive.open(entry) as member:
        if not isinstance(member, io.BufferedIOBase):
            raise MetaFormatError(path, name, "cannot be read")
        member.read(header)
        filled = 0
        while filled < len(target):
            count = member.readinto(target[filled:])
            if not count:
                raise MetaFormatError(path, name, f"ends after {filled} of {len(target)} bytes")
            filled += count
        member.read(1)  # the checksum is verified at the end of the member
    return array


def _little_endian(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
