from __future__ import annotations

import random

from codecmeta.batch.record_listing import RecordListing


def test_a_listing_is_a_dictionary() -> None:
    rng = random.Random(0)
    expected = {f"a/{rng.random()}.npz": (rng.randrange(1 << 40), rng.randrange(1 << 62)) for _ in range(500)}
    listing = RecordListing()
    assert listing.find("a") is None
    names = list(expected)
    for place in names[:300]:
        listing.add(place, *expected[place])
    assert all(listing.find(place) == expected[place] for place in names[:300])
    assert listing.find(names[400]) is None
    for place in names[300:]:
        listing.add(place, *expected[place])
    assert all(listing.find(place) == expected[place] for place in names)
    assert listing.find("none") is None
