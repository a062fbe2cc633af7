"""Container formats that are read, and the reason why a file of another format is refused."""

from __future__ import annotations

from typing import NamedTuple


class Format(NamedTuple):
    """Kind of container.

    Attributes:
        name: the name that users know.
        extensions: usual file name extensions, in lower case.
        demuxers: libavformat's names; each reads the one file that it is given, and opens no other.
    """

    name: str
    extensions: tuple[str, ...]
    demuxers: tuple[str, ...]


_MP4 = (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2")
_RAW = (".264", ".h264", ".avc", ".265", ".h265", ".hevc", ".266", ".vvc", ".h263", ".obu", ".av1", ".m1v", ".m2v")

FORMATS = (
    Format("MP4, QuickTime", _MP4, ("mov", "mp4", "m4a", "3gp", "3g2", "mj2")),
    Format("Matroska, WebM", (".mkv", ".webm"), ("matroska", "webm")),
    Format("AVI", (".avi", ".divx"), ("avi",)),
    Format("MPEG transport stream", (".ts", ".m2ts", ".mts"), ("mpegts",)),
    Format("MPEG program stream", (".mpg", ".mpeg", ".mpe", ".vob"), ("mpeg",)),
    Format("Flash video", (".flv", ".f4v"), ("flv",)),
    Format("Ogg", (".ogv", ".ogg"), ("ogg",)),
    Format("ASF, Windows Media", (".wmv", ".asf"), ("asf",)),
    Format("MXF", (".mxf",), ("mxf",)),
    Format("NUT", (".nut",), ("nut",)),
    Format("YUV4MPEG", (".y4m",), ("yuv4mpegpipe",)),
    Format("IVF", (".ivf",), ("ivf",)),
    Format("GIF", (".gif",), ("gif",)),
    Format("animated PNG", (".apng",), ("apng",)),
    Format("elementary streams", _RAW, ("mpegvideo", "m4v", "h264", "hevc", "vvc", "obu", "av1", "h263", "h261")),
    # opened only to report "no video stream"
    Format("sound", (), ("wav", "mp3", "flac", "aac")),
)
DEMUXERS = ",".join(name for one in FORMATS for name in one.demuxers)
"""Demuxers that libavformat may try, and no others: playlists and concat scripts would open other files."""

_STILLS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}
_ISO_STILLS = {b"avif": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"mif1": "HEIF"}
_OTHERS = {
    b".RMF": "RealMedia",
    b"\x1f\x8b": "gzip",
    b"PK\3\4": "zip",
    b"%PDF": "PDF",
    b"FWS": "Shockwave Flash",
    b"CWS": "Shockwave Flash",
    b"<!DOCTYPE": "HTML",
    b"<html": "HTML",
}


def explain_refusal(head: bytes) -> str | None:
    """Name the format of a file that no allowed demuxer reads, by its first bytes; return None if unknown.

    Args:
        head: the first 32 bytes.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        # bit 1 of the flags of an extended file (RFC 9649, 2.7)
        if head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2:
            # FFmpeg 9 decodes it, but gives all pictures the tag of the first
            return "an animated WebP, whose frames FFmpeg cannot tie to their packets; convert it to a video"
        return "a WebP picture, not a video"
    if head[4:8] == b"ftyp" and (name := _ISO_STILLS.get(head[8:12])):
        return f"a {name} picture, not a video"
    for start, name in _STILLS.items():
        if head.startswith(start):
            return f"a {name} picture, not a video"
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return f"{name}, which is not a supported video container"
    return None
