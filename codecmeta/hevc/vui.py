"""Profile, tier and level, and video usability information, skipped over (Rec. ITU-T H.265, 7.3.3, Annex E)."""

from __future__ import annotations

from codecmeta.entropy.bits import BitReader

_EXTENDED_SAR = 255


def skip_profile_tier_level(reader: BitReader, sub_layers: int) -> None:
    """Skip profile_tier_level(1, sub_layers) (7.3.3); `sub_layers` is max_sub_layers_minus1."""
    reader.skip(88 + 8)
    present = [(reader.flag(), reader.flag()) for _ in range(sub_layers)]
    if sub_layers:
        reader.skip(2 * (8 - sub_layers))
    for profile, level in present:
        reader.skip(88 * profile + 8 * level)


def skip_vui(reader: BitReader, sub_layers: int) -> None:
    """Skip vui_parameters (E.2.1)."""
    if reader.flag() and reader.u(8) == _EXTENDED_SAR:
        reader.skip(32)
    if reader.flag():
        reader.skip(1)
    if reader.flag():
        reader.skip(4)
        if reader.flag():
            reader.skip(24)
    if reader.flag():
        reader.ue(5, "chroma_sample_loc_type_top_field")
        reader.ue(5, "chroma_sample_loc_type_bottom_field")
    reader.skip(3)
    if reader.flag():
        for _ in range(4):
            reader.ue()
    if reader.flag():
        reader.skip(64)
        if reader.flag():
            reader.ue()
        if reader.flag():
            _skip_hrd(reader, sub_layers)
    if reader.flag():
        reader.skip(3)
        for _ in range(5):
            reader.ue()


def _skip_hrd(reader: BitReader, sub_layers: int) -> None:
    """Skip hrd_parameters(1, sub_layers) (E.2.2)."""
    kinds = reader.u(2)
    sub_pictures = False
    if kinds:
        sub_pictures = reader.flag()
        if sub_pictures:
            reader.skip(19)
        reader.skip(8)
        if sub_pictures:
            reader.skip(4)
        reader.skip(15)
    for _ in range(sub_layers + 1):
        fixed = reader.flag() or reader.flag()
        low_delay = False
        if fixed:
            reader.ue()
        else:
            low_delay = reader.flag()
        count = 1 if low_delay else 1 + reader.ue(31, "cpb_cnt_minus1")
        for _ in range(count * kinds.bit_count()):
            for _ in range(4 if sub_pictures else 2):
                reader.ue()
            reader.skip(1)
