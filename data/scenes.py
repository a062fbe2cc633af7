"""Scenes of the six clips: what stands still, what moves, when the picture cuts, and the short key event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from drawing import (
    Colour,
    Paint,
    Picture,
    Plane,
    Pose,
    Samples,
    Sprite,
    blend,
    box,
    camera_noise,
    circle,
    coordinates,
    fill,
    shade,
    stroke,
    texture,
    to_yuv420,
)

SEVEN = ((-13.0, -20.0), (13.0, -20.0), (-5.0, 21.0))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Clip before it is encoded.

    Attributes:
        name: of the clip, without suffix.
        shows: one line for a reader.
        size: width and height in pixels.
        frames: number of frames, at 25 per second.
        noise: standard deviation of the camera noise in luma steps; 0 for none.
        background: frame -> picture without sprites.
        still: the background is the same in every frame (of a shot).
        sprites: painted in this order.
        cut: first frame of the second shot, or None.
    """

    name: str
    shows: str
    size: tuple[int, int]
    frames: int
    noise: float
    background: Callable[[int], Picture]
    still: bool
    sprites: tuple[Sprite, ...] = ()
    cut: int | None = None

    def draw(self, frame: int) -> Picture:
        """Draw the picture of a frame before noise, RGB float64 (h, w, 3) in 0..255."""
        picture = self.background(frame)
        for sprite in self.sprites:
            sprite.draw(picture, frame)
        return picture

    def render(self, frame: int) -> tuple[Samples, Samples, Samples]:
        """Render the planes Y, Cb, Cr of a frame as the encoder gets them, uint8, 4:2:0."""
        width, height = self.size
        noise: Plane = np.zeros((1, 1))
        if self.noise:
            noise = self.noise * camera_noise(width, height, seed=len(self.name), frame=frame)
        return to_yuv420(self.draw(frame), noise)


def _living_room(width: int, height: int) -> Picture:
    x, y = coordinates(width, height)
    floor = 0.70 * height
    picture = shade((214, 205, 190), 14 * (0.5 - y / height) + 0 * x)
    planks = 10 * texture(x / 6, y, seed=3, cell=5) - 22 * (np.mod(y - floor, 24) < 1.5)
    picture = blend(picture, shade((150, 112, 78), planks), floor - y + 0 * x)
    picture = blend(picture, fill((240, 238, 232), (height, width)), box(x, y - floor, width, 3))
    sky = shade((150, 190, 225), 45 * y / height + 14 * texture(x, y, seed=5, cell=48))
    for left in (42, 90):
        picture = blend(picture, fill((92, 70, 52), (height, width)), box(x - left, y - 68, 24, 40, 3))
        picture = blend(picture, sky, box(x - left, y - 68, 20, 36))
    shelf = box(x - 252, y - 78, 48, 3)
    picture = blend(picture, fill((96, 66, 44), (height, width)), shelf)
    books: tuple[Colour, ...] = (
        (168, 60, 52),
        (56, 96, 130),
        (214, 170, 72),
        (74, 122, 84),
        (120, 80, 130),
        (190, 190, 180),
    )
    for index, colour in enumerate(books):
        tall = 15 + 4 * (index * 5 % 3)
        spine = box(x - 216 - 12 * index, y - 75 + tall, 5, tall, 1)
        picture = blend(picture, fill(colour, (height, width)), spine)
    picture = blend(picture, fill((178, 92, 62), (height, width)), box(x - 284, y - 178, 14, 14, 4))
    for dx, dy in ((-12, -30), (10, -36), (0, -46), (-4, -24), (14, -20)):
        picture = blend(picture, fill((64, 118, 70), (height, width)), circle((x - 284 - dx) * 1.3, y - 178 - dy, 12))
    return picture


def _desk(width: int, height: int) -> Picture:
    x, y = coordinates(width, height)
    unit, edge = height / 192, 0.6 * height
    picture = shade((120, 140, 150), 16 * texture(x, y, seed=11, cell=90, octaves=2))
    wood = shade((176, 138, 98), 12 * texture(x / 8, y, seed=12, cell=6))
    picture = blend(picture, wood, edge - y + 0 * x)
    u, v = (x - 0.32 * width) / unit, (y - 0.36 * height) / unit
    frame = fill((42, 46, 52), (height, width))
    picture = blend(picture, frame, unit * box(u, v - 48, 8, 8))
    picture = blend(picture, frame, unit * box(u, v, 62, 42, 4))
    picture = blend(picture, shade((60, 110, 160), 40 * y / height + 0 * x), unit * box(u, v, 57, 37))
    for row in range(4):
        line = unit * box(u + 14 - 4 * row, v + 20 - 12 * row, 32 - 5 * row, 2)
        picture = blend(picture, fill((225, 232, 238), (height, width)), line)
    cup = unit * box((x - 0.8 * width) / unit, (y - edge) / unit + 8, 14, 17, 4)
    return blend(picture, fill((206, 72, 62), (height, width)), cup)


def _street(x: Plane, y: Plane, height: int) -> Picture:
    """Return a row of houses as a function of the plane, so that a camera can pan by fractions of a pixel."""
    picture = shade((170, 200, 228), 30 * y / height + 12 * texture(x, y, seed=21, cell=60))
    for house in range(-1, 6):
        middle = 92.0 * house + 40
        near = np.flatnonzero(np.abs(x[0] - middle) < 44)
        if near.size:
            columns = slice(near[0], near[-1] + 1)
            picture[:, columns] = _house(picture[:, columns], x[:, columns] - middle, 0.78 * height - y, house)
    road = shade((96, 96, 100), 14 * texture(x, y, seed=41, cell=9))
    return blend(picture, road, 0.78 * height - y + 0 * x)


def _house(picture: Picture, x: Plane, above: Plane, house: int) -> Picture:
    """Draw a house on a picture; x from its middle, `above` the ground."""
    shape = np.broadcast(x, above).shape
    tints: tuple[Colour, ...] = ((196, 140, 110), (150, 160, 140), (206, 190, 150), (170, 120, 120))
    tall = 46 + 7 * (house * 7 % 4)
    bricks = 16 * texture(x, above, seed=31 + house, cell=7, octaves=2)
    picture = blend(picture, shade(tints[house % 4], bricks), box(x, above - tall, 42, tall))
    for row in range(3):
        for column in (-1, 1):
            pane = box(x - 19 * column, above - 2 * tall + 18 + 30 * row, 9, 10, 1)
            picture = blend(picture, fill((58, 74, 96), shape), pane)
    return picture


def _meadow(width: int, height: int) -> Picture:
    x, y = coordinates(width, height)
    picture = shade((120, 160, 200), 40 * y / height + 20 * texture(x, y, seed=51, cell=70))
    hill = 0.55 * height + 12 * texture(x, 0 * y, seed=52, cell=80, octaves=2) - y
    return blend(picture, shade((92, 136, 70), 26 * texture(x, y, seed=53, cell=10)), hill)


def _card(x: Plane, y: Plane) -> tuple[Picture, Plane]:
    """Return a patterned card with the digit 7."""
    shape = np.broadcast(x, y).shape
    outline = box(x, y, 34, 44, 7)
    picture = shade((204, 60, 48), 70 * texture(x, y, seed=61, cell=5, octaves=2))
    picture = blend(picture, fill((250, 246, 232), shape), box(x, y, 25, 34, 5))
    return blend(picture, fill((24, 24, 32), shape), stroke(x, y, SEVEN, 8)), outline


def _ball(colour: Colour, radius: float, *, seed: int) -> Paint:
    def paint(x: Plane, y: Plane) -> tuple[Picture, Plane]:
        surface = shade(colour, 30 * texture(x, y, seed=seed, cell=8) - 0.9 * (x + y))
        stripe = shade((245, 240, 230), -0.9 * (x + y))
        return blend(surface, stripe, np.abs(y) - radius / 5 + 0 * x), circle(x, y, radius)

    return paint


def _car(x: Plane, y: Plane) -> tuple[Picture, Plane]:
    shape = np.broadcast(x, y).shape
    body = np.minimum(box(x, y - 5, 40, 11, 5), box(x + 4, y + 9, 22, 9, 5))
    picture = shade((44, 92, 170), -1.2 * y + 0 * x)
    picture = blend(picture, fill((200, 226, 240), shape), box(x + 4, y + 8, 18, 6, 3))
    picture = blend(picture, fill((70, 90, 110), shape), box(x + 4, y + 8, 1.5, 6))
    outline = body
    for wheel in (-23, 23):
        tyre = circle(x - wheel, y - 15, 9)
        picture = blend(picture, fill((26, 26, 28), shape), tyre)
        picture = blend(picture, fill((170, 170, 176), shape), circle(x - wheel, y - 15, 4))
        outline = np.minimum(outline, tyre)
    return picture, outline


def _bounce(time: float, low: float, high: float) -> float:
    """Return the position of an object that moves between two walls, after a path of `time` from the lower one."""
    span = high - low
    way = time % (2 * span)
    return low + (way if way < span else 2 * span - way)


def _event_scene() -> Scene:
    room = _living_room(320, 240)
    start, stop = 120, 150

    def pose(frame: int) -> Pose:
        s = (frame - start) / (stop - start)
        hop = s % 0.5 - 0.25
        return Pose(x=70 + 180 * s, y=60 + 2080 * hop * hop, turn=_bounce(3.0 * s, -0.25, 0.25))

    card = Sprite(name="card 7", role="event", frames=(start, stop), radius=56.0, pose=pose, paint=_card)
    return Scene(
        name="event",
        shows="a room where nothing happens; for 1.2 s a card with the digit 7 flies through",
        size=(320, 240),
        frames=300,
        noise=0.5,
        background=lambda frame: room.copy(),
        still=True,
        sprites=(card,),
    )


def _cut_scene() -> Scene:
    first, second = _desk(256, 192), _meadow(256, 192)
    cut = 37
    red = Sprite(
        name="red ball",
        role="object",
        frames=(0, cut),
        radius=22.0,
        pose=lambda t: Pose(x=60 + 3.2 * t, y=_bounce(40 + 5.5 * t, 60, 165), turn=0.02 * t),
        paint=_ball((208, 62, 50), 22, seed=71),
    )
    blue = Sprite(
        name="blue ball",
        role="object",
        frames=(cut, 75),
        radius=28.0,
        pose=lambda t: Pose(x=216 - 4.1 * (t - cut), y=_bounce(120 + 3 * t, 50, 150), turn=-0.03 * (t - cut)),
        paint=_ball((52, 84, 176), 28, seed=72),
    )
    return Scene(
        name="cut",
        shows="a desk with a red ball, then a cut to a meadow with a blue one",
        size=(256, 192),
        frames=75,
        noise=0.0,
        background=lambda frame: (first if frame < cut else second).copy(),
        still=True,
        sprites=(red, blue),
        cut=cut,
    )


def _noise_scene() -> Scene:
    desk = _desk(224, 160)
    ball = Sprite(
        name="green ball",
        role="object",
        frames=(0, 60),
        radius=18.0,
        pose=lambda t: Pose(x=_bounce(3.7 * t, 24, 200), y=118 + 0.25 * t, turn=0.05 * t),
        paint=_ball((66, 150, 84), 18, seed=73),
    )
    return Scene(
        name="noise",
        shows="a desk under camera noise (sigma 4) with one ball rolling over it",
        size=(224, 160),
        frames=60,
        noise=4.0,
        background=lambda frame: desk.copy(),
        still=True,
        sprites=(ball,),
    )


def _pan_scene() -> Scene:
    x, y = coordinates(320, 180)
    car = Sprite(
        name="car",
        role="object",
        frames=(0, 64),
        radius=46.0,
        pose=lambda t: Pose(x=40 + 3.6 * t, y=140),
        paint=_car,
    )
    return Scene(
        name="pan",
        shows="the camera pans along a street by 1.375 pixels per frame, a car drives faster",
        size=(320, 180),
        frames=64,
        noise=1.0,
        background=lambda frame: _street(x + 1.375 * frame, y, 180),
        still=False,
        sprites=(car,),
    )


def _objects_scene() -> Scene:
    meadow = _meadow(241, 161)
    yellow = Sprite(
        name="yellow ball",
        role="object",
        frames=(0, 60),
        radius=20.0,
        pose=lambda t: Pose(x=_bounce(30 + 4.4 * t, 25, 216), y=_bounce(60 + 2.2 * t, 25, 136), turn=0.03 * t),
        paint=_ball((226, 184, 60), 20, seed=81),
    )
    purple = Sprite(
        name="purple ball",
        role="object",
        frames=(20, 60),
        radius=15.0,
        pose=lambda t: Pose(x=215 - 2.6 * (t - 20), y=40 + 0.05 * (t - 20) * (t - 20)),
        paint=_ball((130, 70, 150), 15, seed=82),
    )
    return Scene(
        name="objects",
        shows="two balls over a still meadow, the second appears at frame 20; odd picture size",
        size=(241, 161),
        frames=60,
        noise=0.0,
        background=lambda frame: meadow.copy(),
        still=True,
        sprites=(yellow, purple),
    )


def _still_scene() -> Scene:
    desk = _desk(192, 144)
    return Scene(
        name="still",
        shows="a desk where nothing happens, without noise: pictures after the first are all but empty",
        size=(192, 144),
        frames=50,
        noise=0.0,
        background=lambda frame: desk.copy(),
        still=True,
    )


SCENES = {
    scene.name: scene
    for scene in (
        _event_scene(),
        _cut_scene(),
        _noise_scene(),
        _pan_scene(),
        _objects_scene(),
        _still_scene(),
    )
}
