"""Read everything that is wanted of the chosen frames, with as little decoding as it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from codecmeta import motion
from codecmeta.carried import CarriedEnergy, CarriedState, carried_energy, carry
from codecmeta.container import PacketTable, Video
from codecmeta.decode import Decoder, Picture, Run, plan_runs
from codecmeta.errors import SourceError
from codecmeta.feed import read_payloads
from codecmeta.options import Options
from codecmeta.picture import crop, to_rgb
from codecmeta.references import Decoded, ReferenceStore, in_decode_order
from codecmeta.residual import (
    STANDARDS,
    Evidence,
    Reading,
    ResidualSource,
    SourceName,
    choose_sources,
    is_reference,
    open_source,
)
from codecmeta.timeline import Timeline


@dataclass(kw_only=True)
class FrameRecord:
    """What was read of one sampled frame; None for what was not asked for or is not to be had."""

    type: str = "?"
    source: SourceName | None = None
    reasons: dict[SourceName, str] = field(default_factory=dict)
    reading: Reading | None = None
    carried: CarriedEnergy | None = None
    vectors: NDArray[np.int16] | None = None
    qp: NDArray[np.int8] | None = None
    pixels: NDArray[np.uint8] | None = None
    seen: bool = False


@dataclass(frozen=True, kw_only=True)
class Harvest:
    """The records of the sampled frames, and what decoding them showed.

    Attributes:
        records: one per target, in the order of the targets.
        rotation: degrees counter-clockwise for display.
        decoded: pictures that were decoded.
        errors: packets that the decoder refused.
        corrupt: pictures that it marked as corrupt.
    """

    records: Sequence[FrameRecord]
    rotation: int
    decoded: int
    errors: int
    corrupt: int


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
        self._sources = [open_source(name, video) for name in choose_sources(options.residual, video.codec)]
        self._maps = options.chosen_maps
        self._carries = "carried" in self._maps and video.codec in STANDARDS
        self._rotation: int | None = video.track.rotation if video.track else None
        self._decoded = 0
        self._errors = 0
        self._corrupt = 0

    def run(self) -> Harvest:
        """Read all targets.

        Raises:
            SourceError: a frame cannot be read.
        """
        left = list(self._records)
        sources = self._sources if self._maps else []
        if sources and sources[0].context == "nothing" and not self._decodes:
            left = self._read_packets(sources[0], left)
            sources = sources[1:]
            if left and not sources:
                self._give_up(self._records[left[0]], int(self._timeline.rank[left[0]]))
        if left and (sources or self._decodes):
            self._read_pictures(sources, left)
        return Harvest(
            records=list(self._records.values()),
            rotation=self._rotation or 0,
            decoded=self._decoded,
            errors=self._errors,
            corrupt=self._corrupt,
        )

    @property
    def _decodes(self) -> bool:
        options = self._options
        by_bitstream = bool(self._sources) and self._sources[0].name == "bitstream" and bool(self._maps)
        return bool(options.pixels is not None or options.motion or self._carries or (options.qp and not by_bitstream))

    def _read_packets(self, source: ResidualSource, targets: Iterable[int]) -> list[int]:
        """Read targets from their packets alone; returns those that cannot be."""
        wanted = set(targets)
        keys = np.flatnonzero(self._packets.key)
        heads = {int(keys[np.searchsorted(keys, target, side="right") - 1]) for target in wanted}
        failed = []
        for number, payload in read_payloads(self._video, self._packets, wanted | heads):
            source.observe(payload)
            if number in wanted and not self._read(self._records[number], [source], Evidence(payload=payload)):
                failed.append(number)
        return failed

    def _read(self, record: FrameRecord, sources: Sequence[ResidualSource], evidence: Evidence) -> Reading | None:
        """Take the residual from the first source that has it."""
        for source in sources:
            try:
                reading = source.read(evidence, block=self._block, cells=self._carries)
            except SourceError as error:
                if error.code not in ("bitstream", "no_signal"):
                    raise
                record.reasons[source.name] = str(error)
                continue
            record.source = source.name
            record.reading = reading
            record.type = reading.type or record.type
            record.qp = reading.qp if reading.qp is not None else record.qp
            return reading
        return None

    def _read_pictures(self, sources: Sequence[ResidualSource], targets: Sequence[int]) -> None:
        contexts = {source.context for source in sources}
        estimates = "references" in contexts and sources[0].context == "references"
        decoder = Decoder(
            self._video,
            self._packets,
            vectors=self._options.motion or self._carries or "references" in contexts,
            quantisers=self._options.qp or "references" in contexts,
            payloads=bool(sources),
            coded_size=estimates,
        )
        before = self._predecessors(targets) if "predecessor" in contexts else {}
        for run in plan_runs(self._packets, self._timeline.rank, {*targets, *before.values()}):
            if before:
                self._read_run_with_predecessors(decoder.decode(run), sources, before)
            else:
                self._read_run(decoder, run, sources)
        self._errors += decoder.errors
        self._corrupt += decoder.corrupt
        missing = [target for target in targets if not self._records[target].seen]
        if missing:
            place = self._timeline.rank[missing[0]]
            raise SourceError(
                "damaged", f"{len(missing)} of {len(targets)} frames are not decoded, first frame {place}"
            )

    def _predecessors(self, targets: Iterable[int]) -> dict[int, int]:
        """The packet shown before each target; a first frame has none and stands for itself."""
        frames = self._timeline.packet
        place = {int(packet): index for index, packet in enumerate(frames)}
        return {target: int(frames[max(place[target] - 1, 0)]) for target in targets}

    def _read_run_with_predecessors(
        self, pictures: Iterator[Picture], sources: Sequence[ResidualSource], before: Mapping[int, int]
    ) -> None:
        held: dict[int, Decoded] = {}
        useful = set(before.values())
        for picture in pictures:
            rank = int(self._timeline.rank[picture.packet])
            past = [held[before[picture.packet]]] if before.get(picture.packet) in held else []
            if picture.packet in useful:
                held = {picture.packet: Decoded(picture=picture, rank=rank)}
            if picture.packet in before:
                self._keep(picture)
                evidence = Evidence(payload=picture.payload, picture=picture, rank=rank, past=past)
                self._require(self._records[picture.packet], sources, evidence)
            self._decoded += 1

    def _read_run(self, decoder: Decoder, run: Run, sources: Sequence[ResidualSource]) -> None:
        store = ReferenceStore()
        pictures = decoder.decode(run)
        for picture in in_decode_order(pictures) if sources else pictures:
            self._decoded += 1
            target = picture.packet in run.targets
            if target:
                self._keep(picture)
            if not sources:
                continue
            for source in sources:
                source.observe(picture.payload)
            decoded = Decoded(picture=picture, rank=int(self._timeline.rank[picture.packet]))
            if target or self._carries:
                self._read_decoded(decoded, store, sources, target=target)
            if not target or is_reference(self._video, picture):
                store.add(decoded)

    def _read_decoded(
        self, decoded: Decoded, store: ReferenceStore, sources: Sequence[ResidualSource], *, target: bool
    ) -> None:
        picture = decoded.picture
        past, future = store.around(decoded.rank)
        evidence = Evidence(
            payload=picture.payload,
            picture=picture,
            vectors=motion.vectors(picture.frame),
            qp=motion.quantisers(picture.frame, picture.frame.width, picture.frame.height),
            rank=decoded.rank,
            past=past,
            future=future,
        )
        record = self._records[picture.packet] if target else FrameRecord()
        reading = self._require(record, sources, evidence)
        if self._carries and reading.cells is not None and reading.field is not None:
            states = [reference.state for reference in (*past, *future)]
            known = [state if state is not None else reading.cells for state in states]
            decoded.state = carry(known, reading.field, reading.cells)
            if target:
                record.carried = self._carried_energy(decoded.state)

    def _require(self, record: FrameRecord, sources: Sequence[ResidualSource], evidence: Evidence) -> Reading:
        reading = self._read(record, sources, evidence)
        if reading is None:
            self._give_up(record, evidence.rank)
        return reading

    def _give_up(self, record: FrameRecord, place: int) -> NoReturn:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in record.reasons.items())
        raise SourceError("damaged", f"no source has the residual of frame {place} ({reasons})")

    def _carried_energy(self, state: CarriedState) -> CarriedEnergy:
        height, width = self._video.height, self._video.width
        return carried_energy(state, luma=(height, width), chroma=self._video.chroma_size, block=self._block)

    def _keep(self, picture: Picture) -> None:
        """Take what a target's picture shows by itself."""
        frame = picture.frame
        if self._rotation is None:
            self._rotation = int(frame.rotation)
        record = self._records[picture.packet]
        record.seen = True
        record.type = picture.type
        if self._options.motion:
            record.vectors = motion.vectors(frame)
        if self._options.qp:
            record.qp = motion.quantisers(frame, self._video.width, self._video.height)
        if self._options.pixels is not None:
            shown = crop(frame, width=self._video.width, height=self._video.height)
            record.pixels = to_rgb(shown, short_side=self._options.pixels, rotation=self._rotation)
