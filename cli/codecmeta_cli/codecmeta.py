"""`codecmeta`: extract, show and plot the codec metadata of videos."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from codecmeta_cli import folders, machine, normalization
from codecmeta_cli.command_group import CommandGroup
from codecmeta_cli.console import refuse
from codecmeta_cli.output import guard_output
from codecmeta_cli.run_options import (
    EngineName,
    Jobs,
    Json,
    MaxBytes,
    MaxFrames,
    MaxPixels,
    Memory,
    Part,
    ShardSize,
    Timeout,
)

_SIDE = 384
"""Short side of the cached frames by default."""

app = typer.Typer(
    name="codecmeta",
    cls=CommandGroup,
    help="Read what a video codec already computed: packets, GoPs, motion vectors, quantisers, residuals.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        import av

        from codecmeta import __version__

        typer.echo(f"codecmeta {__version__} (PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info})")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    """Read what a video codec already computed: packets, GoPs, motion vectors, quantisers, residuals."""


@app.command()
def extract(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, globs, @list.txt, or - for a list on standard input; URLs of videos and buckets.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the .npz files, or its URL (s3://, gs://). A file a/clip.mp4 becomes OUT/clip.mp4.npz, the "
            "files of a folder keep their paths below it, and so do files of one name below the deepest folder that "
            "holds them.",
        ),
    ],
    frames: Annotated[
        str, typer.Option(help="uniform:N, fps:R, keyframes, all, or indices such as 0,40,80, each taken once.")
    ] = "uniform:32",
    residual: Annotated[
        Literal["auto", "bitstream", "motion", "proxy", "none"],
        typer.Option(
            help="Source of the residual. auto reads the stream's own: from the packets (bitstream: H.264, "
            "HEVC), else by decoding (motion: MPEG-1/2/4, H.263), else none. proxy encodes every frame again, for any "
            "codec, and only where it is named."
        ),
    ] = "auto",
    maps: Annotated[
        str | None,
        typer.Option(
            show_default="innovation",
            help="Energy maps to make, separated by commas: innovation, what a frame codes; carried, what is on screen "
            "since the last intra block, for which all frames in between are read.",
        ),
    ] = None,
    pixels: Annotated[
        str,
        typer.Option(
            metavar="SIDE|jpeg|none",
            help="Short side of the cached frames, or none. jpeg (or jpeg:SIDE) caches them as JPEG, a tenth as large.",
        ),
    ] = f"{_SIDE}",
    square_pixels: Annotated[
        bool,
        typer.Option(help="Scale the cached frames of anamorphic videos to their display aspect."),
    ] = True,
    motion: Annotated[bool, typer.Option("--motion", help="Keep the motion vectors of the sampled frames.")] = False,
    qp: Annotated[bool, typer.Option("--qp", help="Keep the quantisers of the sampled frames.")] = False,
    track: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="the best one",
            help="Index of the video stream, counted among all streams of the file.",
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(min=0, show_default="25", help="Frames per second of folders of pictures.")
    ] = None,
    jobs: Jobs = None,
    timeout: Timeout = 900.0,
    memory: Memory = None,
    max_pixels: MaxPixels = 36_000_000,
    max_frames: MaxFrames = 1 << 26,
    max_bytes: MaxBytes = 8 << 30,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Extract existing records again, also those with other options.")
    ] = False,
    deflate: Annotated[
        bool | None,
        typer.Option(
            "--deflate/--no-deflate",
            show_default="no, with --pixels jpeg yes",
            help="Compress the .npz files: smaller, slower.",
        ),
    ] = None,
    pack: Annotated[
        Literal["tar"] | None,
        typer.Option(
            show_default="one file per video",
            help="tar moves the records into tar shards while the run goes on, as WebDataset reads them, and writes "
            "index.parquet at its end.",
        ),
    ] = None,
    shard_size: ShardSize = 1.0,
    engine: EngineName = "local",
    shard: Part = "0/1",
    null: Annotated[
        bool, typer.Option("-0", "--null", help="The paths of lists end with NUL, as find -print0 writes them.")
    ] = False,
    json: Json = False,
) -> None:
    """Extract videos into one .npz each, or into tar shards of such.

    Run it again to extract only what is missing or stale.

    A bad file never stops the run; a full disk does. Exit code: 0 all done, 1 some inputs failed, 2 wrong
    usage, 3 the output cannot be written.
    """
    from codecmeta.batch.inputs import find_inputs
    from codecmeta.batch.output_folder import check_place
    from codecmeta.batch.packed_output import Packing
    from codecmeta.batch.shards import parse_shard
    from codecmeta.errors import UsageError
    from codecmeta.record.options import DEFAULT_MAPS, Options, parse_maps
    from codecmeta_cli.extraction_run import run_extraction

    try:
        folder, part = check_place(out), parse_shard(shard)
        options = Options(
            frames=frames,
            residual=residual,
            maps=DEFAULT_MAPS if maps is None else parse_maps(maps),
            **_read_pixels(pixels),
            square_pixels=square_pixels,
            motion=motion,
            qp=qp,
            track=track,
            fps=fps,
        )
        if isinstance(sys.stdin, io.TextIOWrapper):
            # file names need not be UTF-8
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        inputs = find_inputs(sources, out=folder, stdin=sys.stdin, null=null)
    except UsageError as error:
        refuse("codecmeta", error)
    inputs.start_counting(part)
    run_extraction(
        inputs,
        folder,
        options=options,
        deflate=deflate,
        total=lambda: inputs.total,
        engine=engine,
        jobs=jobs,
        timeout=timeout,
        memory=memory,
        limits=(max_pixels, max_frames, max_bytes),
        json=json,
        shard=part,
        overwrite=overwrite,
        packing=None if pack is None else Packing(shard_bytes=int(shard_size * 1e9)),
    )


@app.command()
def verify(
    meta: Annotated[str, typer.Argument(metavar="META", help="A folder that extract wrote, or its URL.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every video completely.")] = False,
    videos: Annotated[
        str | None,
        typer.Option(
            show_default="as the manifest says",
            help="Folder or URL of the videos, where they have moved: that of a/clip.mp4.npz is VIDEOS/a/clip.mp4.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=0, help="Records at a time; 0 works in this process. Default: all cores.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds per record, 0 for no limit.")] = 900.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per record on standard output.")] = False,
) -> None:
    """Check all records of a folder against their videos.

    It opens every record, compares the digest in it with the video, and its packets with those of the video; --deep
    decodes the videos. Exit code: 0 all sound, 1 some are not, 2 wrong usage.
    """
    from codecmeta.batch.engines import choose_engine
    from codecmeta.batch.folder_status import open_folder
    from codecmeta.batch.verification import find_checks, lost_check, verify_record
    from codecmeta.errors import SourceError, UsageError
    from codecmeta.record.limits import Limits
    from codecmeta_cli.progress import Reporter
    from codecmeta_cli.signals import end_like_interrupted

    end_like_interrupted()
    failed = 0
    try:
        with open_folder(meta) as folder:
            # counted first, not kept: there may be millions
            total = sum(1 for _ in find_checks(folder, videos=videos, deep=deep, limits=Limits()))
            checks = find_checks(folder, videos=videos, deep=deep, limits=Limits())
            with Reporter(json=json, doing="verifying", total=lambda: total) as reporter:
                engine = choose_engine("local", jobs=jobs, timeout=timeout or None, remark=reporter.say)
                for finding in engine.run(verify_record, checks, failure=lost_check):
                    failed += finding.status == "failed"
                    reporter.report_finding(finding)
                reporter.finish({"sound": total - failed, "failed": failed}, meta)
    except UsageError as error:
        refuse("codecmeta", error)
    except SourceError as error:
        refuse("codecmeta", f"{meta}: {error}")
    except BrokenPipeError:
        raise
    except OSError as error:
        refuse("codecmeta", f"{meta}: {error.strerror or error}")
    if failed:
        raise typer.Exit(1)


app.command()(folders.status)
app.command()(folders.retry)
app.command()(folders.pack)
app.command()(normalization.normalize)
app.command()(machine.doctor)
app.command()(machine.warmup)


@app.command()
def show(
    meta: Annotated[str, typer.Argument(metavar="META", help="A .npz that extract wrote, or its URL.")],
    json: Annotated[bool, typer.Option("--json", help="The facts as one JSON object.")] = False,
) -> None:
    """Show one video's metadata on one screen: stream, GoPs, sampled frames, sizes."""
    from codecmeta_cli.screen import print_json, print_meta

    record = _load(meta)
    if json:
        print_json(record)
    else:
        print_meta(record, meta)


@app.command()
def plot(
    meta: Annotated[str, typer.Argument(metavar="META", help="A .npz that extract wrote, or its URL.")],
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .pdf or .svg.")],
    map_name: Annotated[
        Literal["auto", "carried", "innovation"], typer.Option("--map", help="Energy map to overlay on the frames.")
    ] = "auto",
    count: Annotated[int, typer.Option("--frames", min=1, max=64, help="Largest number of frames to draw.")] = 8,
) -> None:
    """Draw packet sizes and GoPs over time, and the sampled frames with overlaid energy and motion."""
    from codecmeta.errors import UsageError
    from codecmeta.plot import plot_meta

    record = _load(meta)
    try:
        plot_meta(record, out, map=None if map_name == "auto" else map_name, count=count)
    except UsageError as error:
        refuse("codecmeta", error)
    except OSError as error:
        refuse("codecmeta", f"{out}: {error.strerror or error}", code=3)


def _load(path: str) -> Any:
    from codecmeta import load
    from codecmeta.errors import MetaFormatError, SourceError, UsageError

    try:
        return load(path)
    except UsageError as error:
        refuse("codecmeta", error)
    except (MetaFormatError, SourceError) as error:
        refuse("codecmeta", error, code=1)
    except OSError as error:
        refuse("codecmeta", f"{path}: {error.strerror or error}", code=1)


def _read_pixels(text: str) -> dict[str, Any]:
    """Read --pixels: a short side, jpeg, jpeg:SIDE or none."""
    from codecmeta.errors import UsageError

    kind, colon, side = text.partition(":")
    if kind == "jpeg":
        kind = side if colon else f"{_SIDE}"
        jpeg: str | None = "auto"
    else:
        jpeg = None
    if text == "none":
        return {"pixels": None}
    if not kind.isdecimal() or (colon and jpeg is None):
        raise UsageError(f"--pixels={text!r}; allowed are a whole number, jpeg, jpeg:224 or any other number, or none")
    return {"pixels": int(kind), "jpeg": jpeg}


def main() -> None:
    """Run the `codecmeta` command."""
    with guard_output("codecmeta"):
        app()
