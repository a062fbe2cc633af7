"""Read everything that is wanted of the chosen frames, with as little decoding as it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from codecmeta.columns import Columns
from codecmeta.container.packet_reader import read_payloads
from codecmeta.container.timeline import Timeline
from codecmeta.container.video import PacketTable, Video
from codecmeta.decoding import side_data
from codecmeta.decoding.decoder import Decoder, Picture, Run, plan_runs
from codecmeta.decoding.rgb import crop, to_rgb, upright
from codecmeta.errors import SourceError
from codecmeta.frame_record import FrameRecord, MotionOrigin
from codecmeta.record.options import Options
from codecmeta.residual.carried import CarriedState, carried_energy, carry
from codecmeta.residual.reference_store import Decoded, ReferenceStore, in_decode_order
from codecmeta.residual.source import (
    STANDARDS,
    Evidence,
    Reading,
    ResidualSource,
    choose_sources,
    cuts_left_or_top,
    is_reference,
    open_source,
)

_MOST_MISSING = 0.1
"""Share of the sampled frames that may be without a picture."""


@dataclass(frozen=True, kw_only=True)
class Harvest:
    """The records and arrays of the sampled frames, and what decoding them showed.

    Attributes:
        targets: packets of the frames that were read.
        records: one per target, in their order.
        columns: the arrays of a VideoMeta that have one row per frame.
        rotation: degrees counter-clockwise for display.
        decoded: pictures that were decoded.
        errors: packets that the decoder refused.
        corrupt: pictures that it marked as corrupt.
        gaps: pictures between the targets whose residual could not be read, so that nothing of it is carried.
        missing: targets that were left out because the decoder did not put them out.
    """

    targets: Sequence[int]
    records: Sequence[FrameRecord]
    columns: Columns
    rotation: int
    decoded: int
    errors: int
    corrupt: int
    gaps: int
    missing: int


class Harvester:
    """Reads chosen frames of one opened video."""

    def __init__(
        self,
        video: Video,
        packets: PacketTable,
        timeline: Timeline,
        targets: Sequence[int],
        options: Options,
        block: Literal[4, 8],
    ) -> None:
        self._video = video
        self._packets = packets
        self._timeline = timeline
        self._options = options
        self._block = block
        self._records = {target: FrameRecord() for target in targets}
        self._row = {target: row for row, target in enumerate(targets)}
        self._columns = Columns(len(targets))
        self._maps = options.chosen_maps
        self._carries = "carried" in self._maps and video.codec in STANDARDS
        names = choose_sources(options.residual, video.codec)
        self._sources = [open_source(name, video, vectors=options.motion, carries=self._carries) for name in names]
        self._rotation: int | None = video.track.rotation if video.track else None
        self._decoded = 0
        self._errors = 0
        self._corrupt = 0
        self._gaps = 0

    def run(self) -> Harvest:
        """Read all targets.

        Raises:
            SourceError: a frame cannot be read.
        """
        left = list(self._records)
        sources = self._sources if self._maps else []
        if sources and sources[0].context == "nothing":
            left = self._read_packets(sources[0], left)
            sources = sources if self._carries and left else sources[1:]
        by_references = [source for source in sources if source.context != "predecessor"]
        unread = set(left if by_references else ())
        unseen = [target for target in self._records if target in unread or self._asks_decoder(target)]
        if unseen and (by_references or not left or not sources):
            left = self._read_pictures(by_references, unseen, unread)
        by_predecessor = [source for source in sources if source.context == "predecessor"]
        if left and by_predecessor:
            left = self._read_pairs(by_predecessor, left)
        missing = self._leave_out_missing() if self._decoded else 0
        left = [target for target in left if target in self._records]
        if left and self._maps:
            record = self._records[left[0]]
            reasons = "; ".join(f"{name}: {reason}" for name, reason in record.reasons.items())
            place = self._timeline.rank[left[0]]
            raise SourceError("damaged", f"no source has the residual of frame {place} ({reasons})")
        return Harvest(
            targets=list(self._records),
            records=list(self._records.values()),
            columns=self._columns,
            rotation=self._find_rotation(),
            decoded=self._decoded,
            errors=self._errors,
            corrupt=self._corrupt,
            gaps=self._gaps,
            missing=missing,
        )

    def _find_rotation(self) -> int:
        """The rotation; where neither the header nor a decoded picture told it, that of the first key picture."""
        if self._rotation is None:
            key = int(np.flatnonzero(self._packets.key)[0])
            run = Run(start=key, stop=key + 1, targets=(key,))
            shown = next(Decoder(self._video, self._packets).decode(run), None)
            self._rotation = 0 if shown is None else upright(int(shown.frame.rotation))
        return self._rotation

    def _asks_decoder(self, target: int) -> bool:
        """Whether something of a target is still wanted that the decoder shows."""
        options, record = self._options, self._records[target]
        vectors = options.motion and record.vectors_from is None
        return options.pixels is not None or vectors or (options.qp and record.source != "bitstream")

    def _read_packets(self, source: ResidualSource, targets: Sequence[int]) -> list[int]:
        """Read targets from packets alone; returns those that cannot be, or that something unreadable carries to."""
        wanted = set(targets)
        if self._options.motion or self._carries:
            runs = plan_runs(self._packets, self._timeline.rank, wanted)
            starts, numbers = {run.start for run in runs}, {n for run in runs for n in range(run.start, run.stop)}
        else:
            keys = np.flatnonzero(self._packets.key)
            starts = {int(keys[np.searchsorted(keys, target, side="right") - 1]) for target in wanted}
            numbers = wanted | starts
        failed: set[int] = set()
        run, broken = -1, -1
        for number, payload in read_payloads(self._video, self._packets, numbers):
            if number in starts:
                source.restart()
                run = number
            if run == broken:
                continue
            source.observe(payload)
            target = number if number in wanted else None
            if target is None and not (self._carries and is_reference(self._video, payload, "?")):
                continue
            reading = self._read([source], Evidence(payload=payload), target=target)
            if self._carries:
                if reading is None or reading.carried is None:
                    broken = run
                    failed.update(*(one.targets for one in runs if one.start == run))
                elif target is not None:
                    self._keep_carried(target, reading.carried, "bitstream")
            elif reading is None:
                failed.add(number)
        return [target for target in targets if target in failed]

    def _read_pictures(self, sources: Sequence[ResidualSource], targets: Sequence[int], unread: set[int]) -> list[int]:
        """Look at targets, and read the residual of some with the pictures around them.

        Args:
            sources: of the residual.
            targets: what to look at.
            unread: those whose residual is to be read.

        Returns:
            Those whose residual cannot be had.
        """
        if self._options.pixels is None and (not unread or sources[0].context == "nothing"):
            # nobody looks at samples, unless a picture turns out to need another source
            if not self._read_runs(sources[:1], targets, unread, samples=False) and not self._gaps:
                return []
            self._decoded = self._gaps = 0
        return self._read_runs(sources, targets, unread, samples=True)

    def _read_runs(
        self, sources: Sequence[ResidualSource], targets: Sequence[int], unread: set[int], *, samples: bool
    ) -> list[int]:
        sources = sources if unread else ()
        estimates = any(source.context == "references" for source in sources)
        decoder = Decoder(
            self._video,
            self._packets,
            vectors=bool(sources) or (self._options.motion and any(not self._records[t].vectors_from for t in targets)),
            quantisers=self._options.qp or estimates,
            payloads=bool(sources),
            coded_size=estimates and not cuts_left_or_top(self._video),
            samples=samples,
        )
        failed: list[int] = []
        for run in self._runs(targets, targets):
            wanted = set(run.targets)
            needed = sources if wanted & unread else ()
            store = ReferenceStore() if needed and (estimates or self._carries) else None
            for source in needed:
                source.restart()
            pictures = decoder.decode(run)
            for picture in in_decode_order(pictures, self._timeline.rank) if store else pictures:
                self._look_at(picture, picture.packet if picture.packet in wanted else None)
                target = picture.packet if picture.packet in wanted & unread else None
                if needed and not self._read_decoded(picture, store, needed, target=target) and target is not None:
                    failed.append(target)
                if not samples and (failed or self._gaps):
                    return failed
        self._account(decoder)
        return failed

    def _runs(self, targets: Sequence[int], packets: Iterable[int]) -> Iterator[Run]:
        """Runs that cover the packets; as long as targets are not seen, again from earlier key packets."""
        yield from plan_runs(self._packets, self._timeline.rank, packets)
        for back in (1, 2, 4, 8):
            missing = [target for target in targets if not self._records[target].seen]
            if missing:
                yield from plan_runs(self._packets, self._timeline.rank, missing, back=back)

    def _read_pairs(self, sources: Sequence[ResidualSource], targets: Sequence[int]) -> list[int]:
        """Read targets with the picture shown before each; returns those whose residual cannot be had."""
        frames = self._timeline.packet
        place = {int(packet): index for index, packet in enumerate(frames)}
        before = {target: int(frames[place[target] - 1]) for target in targets if place[target]}
        wanted, useful = set(targets), set(before.values())
        decoder = Decoder(
            self._video, self._packets, vectors=self._options.motion, quantisers=self._options.qp, payloads=True
        )
        failed: list[int] = []
        held: dict[int, Decoded] = {}
        for run in self._runs(targets, wanted | useful):
            for picture in decoder.decode(run):
                number = picture.packet
                rank = int(self._timeline.rank[number])
                self._look_at(picture, number if number in wanted else None)
                if number in wanted:
                    past = [held[before[number]]] if before.get(number) in held else []
                    evidence = Evidence(payload=picture.payload, picture=picture, rank=rank, past=past)
                    if not self._read(sources, evidence, target=number):
                        failed.append(number)
                if number in useful:
                    held = {number: Decoded(picture=picture, rank=rank)}
        self._account(decoder)
        return failed

    def _account(self, decoder: Decoder) -> None:
        self._errors += decoder.errors
        self._corrupt += decoder.corrupt

    def _leave_out_missing(self) -> int:
        """Drop the frames that the decoder did not put out, if they are few: pictures without content, or damaged."""
        missing = [target for target, r in self._records.items() if not r.seen and r.source is None]
        if len(missing) > _MOST_MISSING * len(self._records):
            first = f"{len(missing)} of {len(self._records)} frames are not decoded, first frame"
            raise SourceError("damaged", f"{first} {self._timeline.rank[missing[0]]}")
        for target in missing:
            del self._records[target]
        self._columns.keep([row for target, row in self._row.items() if target in self._records])
        return len(missing)

    def _read(self, sources: Sequence[ResidualSource], evidence: Evidence, *, target: int | None) -> Reading | None:
        """Take the residual from the first source that has it; of a target, keep it."""
        record = FrameRecord() if target is None else self._records[target]
        for source in sources:
            try:
                reading = source.read(evidence, block=self._block, energy=target is not None, cells=self._carries)
            except SourceError as error:
                if error.code not in ("bitstream", "no_signal"):
                    raise
                record.reasons[source.name] = str(error)
                continue
            record.source = source.name
            if target is not None:
                self._keep(target, reading)
            return reading
        return None

    def _read_decoded(
        self, picture: Picture, store: ReferenceStore | None, sources: Sequence[ResidualSource], *, target: int | None
    ) -> bool:
        """Read a decoded picture; with a store, let it be a reference, and follow what it carries.

        Returns:
            False if it is a target and cannot be read.
        """
        rank = int(self._timeline.rank[picture.packet])
        if store is None and target is not None:
            evidence = Evidence(payload=picture.payload, picture=picture, rank=rank)
            return self._read(sources, evidence, target=target) is not None
        for source in sources:
            source.observe(picture.payload)
        if store is None:
            return True
        decoded = Decoded(picture=picture, rank=rank, room=store.room)
        past, future = store.around(rank)
        if self._video.codec != "h264":
            # the reference is known, and fields of motion count these two alone
            past, future = past[:1], future[:1]
        reading = None
        if target is not None or self._carries:
            evidence = Evidence(payload=picture.payload, picture=picture, rank=rank, past=past, future=future)
            reading = self._read(sources, evidence, target=target)
            self._gaps += reading is None and target is None
            if reading is not None and reading.cells is not None and reading.field is not None:
                states = [reference.state or reading.cells for reference in (*past, *future)]
                decoded.state = carry(states, reading.field, reading.cells)
                if target is not None:
                    self._keep_carried(target, decoded.state, "decoder")
        if target is None or is_reference(self._video, picture.payload, picture.type):
            store.add(decoded)
        return target is None or reading is not None

    def _look_at(self, picture: Picture, target: int | None) -> None:
        """Take what a target's picture shows by itself."""
        self._decoded += 1
        frame = picture.frame
        if self._rotation is None:
            self._rotation = upright(int(frame.rotation))
        if target is None or self._records[target].seen:
            return
        record, row = self._records[target], self._row[target]
        record.seen = True
        record.type = picture.type
        if self._options.motion and record.vectors_from is None:
            vectors = picture.vectors
            record.vectors_from = "decoder"
            # MPEG-4 decoders export zero vectors of B pictures, and nothing of a picture that is flushed
            false = self._video.codec == "mpeg4" and picture.type == "B"
            record.vectors = None if false else vectors
            record.vectors_known = not false and not (picture.flushed and picture.type != "I" and vectors is None)
        if self._options.qp:
            exported = side_data.quantisers(frame, self._video.width, self._video.height)
            if exported is not None:
                self._columns.put("qp", row, exported)
        if self._options.pixels is not None:
            shown = crop(frame, width=self._video.width, height=self._video.height)
            rgb = to_rgb(shown, short_side=self._options.pixels, rotation=self._rotation)
            self._columns.put("frames", row, rgb)

    def _keep(self, target: int, reading: Reading) -> None:
        row = self._row[target]
        record = self._records[target]
        record.type = reading.type or record.type
        if reading.energy is not None:
            self._columns.put("residual_power", row, reading.energy.power)
            self._columns.put("residual_mean", row, reading.energy.mean)
            if "innovation" in self._maps:
                self._columns.put("energy_innovation", row, reading.energy.energy)
                self._columns.put("range_innovation", row, reading.energy.range)
        for name in ("mb_bits", "mb_type"):
            if (facts := getattr(reading, name)) is not None:
                self._columns.put(name, row, facts)
        if self._options.qp and reading.qp is not None:
            self._columns.put("qp", row, reading.qp)
        if self._options.motion and reading.vectors is not None:
            record.vectors, record.vectors_from, record.vectors_known = reading.vectors, "bitstream", True

    def _keep_carried(self, target: int, state: CarriedState, along: MotionOrigin) -> None:
        self._records[target].carried_along = along
        luma, chroma = (self._video.height, self._video.width), self._video.chroma_size
        carried = carried_energy(state, luma=luma, chroma=chroma, block=self._block)
        self._columns.put("energy_carried", self._row[target], carried.energy)
        self._columns.put("range_carried", self._row[target], carried.range)
