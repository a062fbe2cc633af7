"""Stand-ins for the residual of a picture, each a map of energy on the grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from fidelity_agreement import Map, grid_means
from fidelity_scenes import Scene
from numpy.typing import NDArray
from scipy import ndimage

from codecmeta.decoding import side_data
from codecmeta.decoding.rgb import crop
from codecmeta.prediction.compensation import Reference, motion_residual
from codecmeta.prediction.reference_selection import FUTURE, PAST
from codecmeta.record.texture import texture_planes
from codecmeta.residual.proxy import ProxySource
from codecmeta.residual.reference_store import Decoded
from codecmeta.residual.source import Evidence


@dataclass(kw_only=True)
class Estimator:
    """Estimates the residual energy of pictures of one clip.

    Attributes:
        width: display width.
        height: display height.
    """

    width: int
    height: int

    @cached_property
    def proxy_source(self) -> ProxySource:
        """The re-encoder, which lasts as long as the clip."""
        return ProxySource(width=self.width, height=self.height)

    def truth(self, scene: Scene) -> Map:
        """Mean square of the residual itself, on the scale of 8 bits, as all energies of samples here."""
        return self._energy(scene.residual.y, scene.residual.bit_depth[0])

    def best(self, scene: Scene) -> Map:
        """Compute the `motion` source: best of four past and two future references, with the dead zone."""
        return self._compensated(scene, past=PAST, future=FUTURE, dead_zone=True)

    def best_without_zone(self, scene: Scene) -> Map:
        """Compute the `motion` source without the dead zone."""
        return self._compensated(scene, past=PAST, future=FUTURE, dead_zone=False)

    def nearest(self, scene: Scene) -> Map:
        """Every vector taken for one into the nearest reference of its side."""
        return self._compensated(scene, past=1, future=1, dead_zone=False)

    def naive(self, scene: Scene) -> Map:
        """Picture minus the one shown before it moved by whole samples, the last vector of a block counting."""
        if scene.previous is None:
            return self.frame_difference(scene)
        samples, before = (decoded.planes[0].astype(np.float64) for decoded in (scene.current, scene.previous))
        height, width = before.shape
        moved = np.zeros((2, height, width), np.int32)
        table = side_data.vectors(scene.current.picture.frame)
        for x, y, w, h, dx, dy, _side in [] if table is None else table.tolist():
            area = np.s_[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
            moved[0][area], moved[1][area] = int(dy / 4), int(dx / 4)
        rows = np.clip(np.arange(height)[:, None] + moved[0], 0, height - 1)
        cols = np.clip(np.arange(width) + moved[1], 0, width - 1)
        prediction = before[rows, cols]
        return self._energy(samples - prediction, self._depth(scene))

    def frame_difference(self, scene: Scene) -> Map:
        """Picture minus the one shown before it; the first picture has nothing to be subtracted from it."""
        samples = scene.current.planes[0].astype(np.float64)
        if scene.previous is not None:
            samples -= scene.previous.planes[0]
        return self._energy(samples, self._depth(scene))

    def laplacian(self, scene: Scene) -> Map:
        """Second differences of the picture."""
        samples = scene.current.planes[0].astype(np.float64)
        return self._energy(ndimage.laplace(samples, mode="nearest"), self._depth(scene))

    def texture(self, scene: Scene) -> Map:
        """Residual of the best of four intra predictions from decoded samples."""
        depth = self._depth(scene)
        return self._energy(texture_planes(scene.current.planes, bit_depth=depth)[0], depth)

    def mb_bits(self, scene: Scene) -> Map:
        """Bits that each macroblock took in the stream."""
        return grid_means(scene.residual.mb_bits, block=16, size=(self.height, self.width))

    def proxy(self, scene: Scene) -> Map:
        """Compute the `proxy` source: residual of an encoding of the picture after the one shown before it."""
        past = [] if scene.previous is None else [self._shown(scene.previous)]
        evidence = Evidence(payload=b"", picture=self._shown(scene.current).picture, past=past)
        energy = self.proxy_source.read(evidence, block=4, energy=True, cells=False).energy
        if energy is None:
            raise RuntimeError("the proxy source gave no energy")
        return grid_means(energy.power[0], block=4, size=(self.height, self.width))

    def _compensated(self, scene: Scene, *, past: int, future: int, dead_zone: bool) -> Map:
        frame = scene.current.picture.frame
        sides = [
            [Reference(samples=one.samples, distance=abs(one.rank - scene.current.rank)) for one in side]
            for side in (scene.past[:past], scene.future[:future])
        ]
        measured = motion_residual(
            scene.current.planes,
            side_data.vectors(frame),
            *sides,
            standard="h264",
            qp=side_data.quantisers(frame, frame.width, frame.height) if dead_zone else None,
            bit_depth=self._depth(scene),
        )
        return self._energy(measured.planes[0], self._depth(scene))

    def _energy(self, luma: NDArray[np.int16] | Map, bit_depth: int) -> Map:
        scaled = luma[: self.height, : self.width].astype(np.float64) / (1 << bit_depth - 8)
        return grid_means(scaled * scaled, block=1, size=(self.height, self.width))

    def _depth(self, scene: Scene) -> int:
        return side_data.bit_depth(scene.current.picture.frame)

    def _shown(self, decoded: Decoded) -> Decoded:
        frame = crop(decoded.picture.frame, width=self.width, height=self.height)
        return Decoded(picture=replace(decoded.picture, frame=frame), rank=decoded.rank)


ESTIMATES: dict[str, Callable[[Estimator, Scene], Map]] = {
    "motion, best of 4/2 + dead zone": Estimator.best,
    "motion, best of 4/2": Estimator.best_without_zone,
    "motion, nearest reference": Estimator.nearest,
    "naive": Estimator.naive,
    "frame difference": Estimator.frame_difference,
    "Laplacian": Estimator.laplacian,
    "texture": Estimator.texture,
    "mb_bits": Estimator.mb_bits,
    "proxy": Estimator.proxy,
}
"""By the name that tables give them."""
