"""Reading passes over a video: everything requested of the chosen frames, with as little decoding as possible.

Each pass fills what it can of a `FrameTable`; the next one reads what the table still lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from codecmeta.container.packet_reader import read_payloads
from codecmeta.decoding.decoder import Decoder, Picture, Run, plan_runs
from codecmeta.errors import SourceError
from codecmeta.frame_columns import (
    Request,
    close_columns,
    keep_carried,
    keep_picture,
    list_not_asked,
    read_residual,
)
from codecmeta.frame_table import Column, DecodeCounts, FrameTable
from codecmeta.residual.carried import carry
from codecmeta.residual.choice import choose_sources, open_source
from codecmeta.residual.motion import cuts_left_or_top
from codecmeta.residual.reference_store import Decoded, ReferenceStore, in_decode_order, is_reference
from codecmeta.residual.source import Evidence, ResidualSource

MOST_MISSING = 0.1
"""Share of the sampled frames that may be omitted because the decoder gives no picture; above it, a file is refused."""


def read_frames(request: Request, targets: Sequence[int]) -> FrameTable:
    """Read all requested data of some frames.

    Args:
        request: the video, and what is requested of it.
        targets: packets of the frames, in presentation order.

    Returns:
        A table whose rows all hold the requested pixels and residual. Rows for which the decoder gives no picture are
        omitted and counted, up to the share `MOST_MISSING`.

    Raises:
        SourceError: the decoder gives none of the pictures, too many are missing, or a residual cannot be read.
    """
    video, options = request.video, request.options
    names = choose_sources(options.residual, video.codec)
    table = FrameTable(targets, not_asked=list_not_asked(options, video.codec, names))
    if not request.carries:
        table.mark_absent("carried", f"{video.codec}: there are no motion vectors that can be followed")
    sources = [open_source(name, video, vectors=options.motion, carries=request.carries) for name in names]
    sources = sources if options.chosen_maps else []
    if sources and sources[0].context == "nothing":
        read_packets(request, table, sources[0])
        # on a second reading with its neighbours, a picture carries energy although a picture before it is unreadable
        sources = sources if request.carries and table.lacking("residual", "carried") else sources[1:]
    by_references = [source for source in sources if source.context == "references" or source.context == "nothing"]
    by_predecessor = [source for source in sources if source.context == "predecessor"]
    lacking = set(table.lacking("residual", "carried")) if sources else set()
    seen_in_pairs = lacking if by_predecessor and not by_references else set()
    looked_at = [
        target
        for target in targets
        if target not in seen_in_pairs
        and ((by_references and target in lacking) or table.is_unread(target, "frames", "motion", "qp"))
    ]
    if looked_at:
        read_pictures(request, table, by_references, looked_at)
    if by_predecessor and table.lacking("residual"):
        read_pairs(request, table, by_predecessor)
    asked = seen_in_pairs.union(looked_at)
    _leave_out_undecoded(request, table, [target for target in targets if target in asked])
    _close_residual(request, table)
    close_columns(request, table)
    return table


def _close_residual(request: Request, table: FrameTable) -> None:
    """Record that pictures have a residual which no source reads, unless a source was named explicitly.

    Sound pictures with unsupported tools fail throughout, pictures with contradictory data only here and there: their
    rows keep all other data, up to the share `MOST_MISSING`.

    Raises:
        SourceError: too many pictures are damaged, the decoder gave nothing to read it from, or the source that was
            named does not have it.
    """
    lacking = table.lacking("residual")
    if not lacking:
        return
    first, refused = lacking[0], all(table.refusals[target] for target in lacking)
    damaged = table.decoding.unreadable & set(lacking)
    if request.options.residual != "auto" or not refused or len(damaged) > MOST_MISSING * len(table.packets):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in table.refusals[first].items())
        raise SourceError("damaged", f"no source has the residual of frame {request.rank(first)} ({reasons})")
    codec = f"{request.video.codec}: "
    reason = codec + next(iter(table.refusals[first].values())).removeprefix(codec)
    columns: tuple[Column, ...] = ("residual", "innovation", "mb_bits", "mb_type")
    for column in columns:
        table.close_column(column, reason)


def read_packets(request: Request, table: FrameTable, source: ResidualSource) -> None:
    """Read the residual from packets alone; what cannot be read, or what it carries, remains lacking."""
    wanted = set(table.packets)
    if request.options.motion or request.carries:
        runs = plan_runs(request.packets, request.timeline.rank, wanted)
        starts, numbers = {run.start for run in runs}, {n for run in runs for n in range(run.start, run.stop)}
    else:
        keys = np.flatnonzero(request.packets.key)
        starts = {int(keys[np.searchsorted(keys, target, side="right") - 1]) for target in wanted}
        numbers = wanted | starts
    run, broken = -1, -1
    for number, payload in read_payloads(request.video, request.packets, numbers):
        if number in starts:
            source.restart()
            run = number
        if run == broken:
            continue
        source.observe(payload)
        target = number if number in wanted else None
        if target is None and not (request.carries and is_reference(request.video, payload, "?")):
            continue
        reading = read_residual(request, table, [source], Evidence(payload=payload), packet=number, target=target)
        if request.carries:
            if reading is None or reading.carried is None:
                broken = run
            elif target is not None:
                keep_carried(request, table, target, reading.carried, "bitstream")


def read_pictures(
    request: Request, table: FrameTable, sources: Sequence[ResidualSource], targets: Sequence[int]
) -> None:
    """Decode targets for their side data, and read what the table lacks of their residual.

    Args:
        request: the video, and what is requested of it.
        table: to be filled.
        sources: of the residual; none where it is complete or cannot be read from decoded pictures.
        targets: packets of the pictures.
    """
    unread = set(table.lacking("residual", "carried")) & set(targets) if sources else set()
    if request.options.pixels is None and (not unread or sources[0].context == "nothing"):
        # samples are not needed unless a picture turns out to need another source
        if _decode_runs(request, table, sources[:1], targets, unread, samples=False):
            return
        unread &= set(table.lacking("residual", "carried"))
    _decode_runs(request, table, sources, targets, unread, samples=True)


def _decode_runs(
    request: Request,
    table: FrameTable,
    sources: Sequence[ResidualSource],
    targets: Sequence[int],
    unread: set[int],
    *,
    samples: bool,
) -> bool:
    """Run one decoding for `read_pictures`; without samples, return False as soon as a picture needs them."""
    sources = sources if unread else ()
    estimates = any(source.context == "references" for source in sources)
    decoder = Decoder(
        request.video,
        request.packets,
        vectors=bool(sources) or any(table.is_unread(target, "motion") for target in targets),
        quantisers=estimates or any(table.is_unread(target, "qp") for target in targets),
        payloads=bool(sources),
        coded_size=estimates and not cuts_left_or_top(request.video),
        samples=samples,
    )
    counts = DecodeCounts()
    for run in _list_runs(request, table, targets, targets):
        wanted = set(run.targets)
        needed = sources if wanted & unread else ()
        store = ReferenceStore() if needed and (estimates or request.carries) else None
        for source in needed:
            source.restart()
        pictures = decoder.decode(run)
        for picture in in_decode_order(pictures, request.timeline.rank) if store else pictures:
            counts.pictures += 1
            counts.checked.add(picture.packet)
            keep_picture(request, table, picture, picture.packet if picture.packet in wanted else None)
            target = picture.packet if picture.packet in wanted & unread else None
            if needed and not _read_decoded(request, table, picture, store, needed, target=target):
                counts.gaps += target is None
                if not samples:
                    return False
    counts.errors, counts.corrupt = decoder.errors, decoder.corrupt
    table.decoding.add(counts)
    return True


def _list_runs(request: Request, table: FrameTable, targets: Sequence[int], packets: Iterable[int]) -> Iterator[Run]:
    """Yield runs that cover the packets; while targets are not decoded, again from earlier key packets."""
    yield from plan_runs(request.packets, request.timeline.rank, packets)
    for back in (1, 2, 4, 8):
        missing = [target for target in targets if not table.holds(target, "picture")]
        if missing:
            yield from plan_runs(request.packets, request.timeline.rank, missing, back=back)


def read_pairs(request: Request, table: FrameTable, sources: Sequence[ResidualSource]) -> None:
    """Read the residual that the table lacks from each picture and the picture shown before it."""
    frames = request.timeline.packet
    targets = table.lacking("residual")
    place = {int(packet): index for index, packet in enumerate(frames)}
    before = {target: int(frames[place[target] - 1]) for target in targets if place[target]}
    wanted, useful = set(targets), set(before.values())
    decoder = Decoder(
        request.video,
        request.packets,
        vectors=table.requests("motion"),
        quantisers=table.requests("qp"),
        payloads=True,
    )
    held: dict[int, Decoded] = {}
    for run in _list_runs(request, table, targets, wanted | useful):
        for picture in decoder.decode(run):
            number = picture.packet
            rank = request.rank(number)
            table.decoding.pictures += 1
            table.decoding.checked.add(picture.packet)
            keep_picture(request, table, picture, number if number in wanted else None)
            if number in wanted:
                past = [held[before[number]]] if before.get(number) in held else []
                evidence = Evidence(payload=picture.payload, picture=picture, rank=rank, past=past)
                read_residual(request, table, sources, evidence, packet=number, target=number)
            if number in useful:
                held = {number: Decoded(picture=picture, rank=rank)}
    table.decoding.add(DecodeCounts(errors=decoder.errors, corrupt=decoder.corrupt))


def _leave_out_undecoded(request: Request, table: FrameTable, asked: Sequence[int]) -> None:
    """Drop rows that cannot be read because the decoder gives no picture; refuse a file with many such rows.

    Args:
        request: the video, and what is requested of it.
        table: what was read.
        asked: packets of the rows requested from the decoder.

    Raises:
        SourceError: the decoder gave none of the pictures, or too many rows would be omitted.
    """
    undecoded = [target for target in asked if not table.holds(target, "picture")]
    if not undecoded:
        return
    reasons = next((table.refusals[target] for target in undecoded if table.refusals[target]), {})
    details = "; ".join(
        [f"the decoder refused {table.decoding.errors} packets"] * (table.decoding.errors > 0)
        + [f"{name}: {reason}" for name, reason in reasons.items()]
    )
    details = f" ({details})" if details else ""
    if len(undecoded) == len(table.packets):
        raise SourceError("damaged", f"nothing is decoded: none of {len(undecoded)} frames gives a picture{details}")
    unread = set(table.lacking("frames", "residual"))
    missing = [target for target in undecoded if target in unread]
    if len(missing) > MOST_MISSING * len(table.packets):
        first = f"{len(missing)} of {len(table.packets)} frames are not decoded, first frame"
        raise SourceError("damaged", f"{first} {request.rank(missing[0])}{details}")
    table.drop(missing)
    table.decoding.missing = len(missing)


def _read_decoded(
    request: Request,
    table: FrameTable,
    picture: Picture,
    store: ReferenceStore | None,
    sources: Sequence[ResidualSource],
    *,
    target: int | None,
) -> bool:
    """Read a decoded picture; with a store, keep it as a reference, and follow what it carries.

    Returns:
        False if it must be read and cannot be.
    """
    rank = request.rank(picture.packet)
    if store is None and target is not None:
        evidence = Evidence(payload=picture.payload, picture=picture, rank=rank)
        return read_residual(request, table, sources, evidence, packet=picture.packet, target=target) is not None
    for source in sources:
        source.observe(picture.payload)
    if store is None:
        return True
    decoded = Decoded(picture=picture, rank=rank, room=store.room)
    past, future = store.around(rank)
    if request.video.codec != "h264":
        # the reference is known, and motion of fields counts only these two
        past, future = past[:1], future[:1]
    reading, read = None, True
    if target is not None or request.carries:
        evidence = Evidence(payload=picture.payload, picture=picture, rank=rank, past=past, future=future)
        reading = read_residual(request, table, sources, evidence, packet=picture.packet, target=target)
        read = reading is not None
        if reading is not None and reading.cells is not None and reading.field is not None:
            states = [reference.state or reading.cells for reference in (*past, *future)]
            decoded.state = carry(states, reading.field, reading.cells)
            if target is not None:
                keep_carried(request, table, target, decoded.state, "decoder")
    if target is None or is_reference(request.video, picture.payload, picture.type):
        store.add(decoded)
    return read
