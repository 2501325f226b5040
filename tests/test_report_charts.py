"""Charts as plain data, and the two ways they are drawn."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from laws.reporting import charts, drawn, gallery, interactive, palette
from laws.reporting.charts import Band, Chart, Contours, Dots, Line, Rule


@pytest.fixture
def chart():
    """One of every mark, on a logarithmic and a linear axis."""
    x = np.geomspace(1e3, 1e6, 20)
    y = 1 + 200 / x**0.6
    return Chart(
        name="every-mark",
        title="T5 & <friends>",
        alt="Every mark at once.",
        x=charts.value_scale("N, parameters", [1e3, 1e4, 1e5, 1e6], lambda value: f"{value:g}"),
        y=charts.plain_scale("loss", (0.5, 5.0), is_log=False),
        marks=(
            Band(x=x, lo=y - 0.1, hi=y + 0.1, colour="c1", belongs_to="law"),
            Line(x=x, y=y, name="law"),
            Dots(
                x=x[::5], y=y[::5], lo=y[::5] - 0.2, hi=np.full(4, math.nan), name="measured", colour="c0",
                hover=("a<br>b",) * 4,
            ),
            Dots(x=x[:2], y=y[:2], symbol="star", colour="c3"),
            Rule(at=4.0, text="chance"),
            Rule(at=2e4, axis="x", text="here"),
            Contours(
                x=np.geomspace(1e3, 1e6, 5), y=np.linspace(0.5, 5, 4), z=np.arange(20.0).reshape(4, 5),
                levels=(5.0, 10.0, 15.0), name="loss",
            ),
        ),
        shades=(0.0, 20.0),
    )  # fmt: skip


def test_still_pictures_hold_every_mark(chart, tmp_path):
    element = drawn.save(chart, tmp_path)
    svg = (tmp_path / "every-mark.svg").read_text()
    light = palette.colours("light")
    assert {light["c0"], light["c1"], light["c3"]} <= set(re.findall(r"#[0-9a-f]{6}", svg))
    assert "T5 &amp; &lt;friends&gt;" in svg
    for text in ("chance", "here", "measured", "N, parameters", "loss"):
        assert f">{text}<" in svg
    picture = np.asarray(Image.open(tmp_path / "every-mark.png").convert("RGB"))
    assert picture.shape[1] == round(drawn.WIDTH * drawn.DPI)
    assert picture.std() > 10
    # the element of a page: its own ids, the page's colours, nothing from outside
    assert element.startswith("<svg")
    assert f"var(--c1,{light['c1']})" in element
    assert "http" not in element
    assert set(re.findall(r"url\(#([^)]+)\)", element)) <= set(re.findall(r'\bid="([^"]+)"', element))
    assert all(each.startswith("every-mark-") for each in re.findall(r'\bid="([^"]+)"', element))


def test_drawn_twice_is_drawn_alike(chart, tmp_path):
    drawn.save(chart, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    drawn.save(chart, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_specification_holds_every_mark(chart):
    told = interactive.specification(chart)
    assert "</" not in told
    found = json.loads(told)
    band, line, dots, star, contours = found["data"]
    assert band["fill"] == "toself"
    assert len(band["x"]) == 40
    assert band["legendgroup"] == line["legendgroup"] == line["name"] == "law"
    assert dots["error_y"]["array"] == [0.0] * 4  # of an unknown end nothing is drawn
    assert dots["error_y"]["arrayminus"] == pytest.approx([0.2] * 4)
    assert dots["text"] == ["a<br>b"] * 4
    assert star["marker"]["symbol"] == "star"
    assert contours["z"][3] == [15.0, 16.0, 17.0, 18.0, 19.0]
    assert (contours["contours"]["start"], contours["contours"]["size"]) == (5.0, 5.0)
    assert found["layout"]["xaxis"]["type"] == "log"
    low, high = found["layout"]["xaxis"]["range"]
    assert 10**low < 1e3 < 1e6 < 10**high
    level, upright = found["layout"]["annotations"]
    assert level["y"] == 4.0
    assert upright["x"] == pytest.approx(math.log10(2e4))  # plotly wants the logarithm here, and the value of a shape
    assert found["layout"]["shapes"][1]["x0"] == 2e4


def test_every_colour_is_known_in_both_themes(chart):
    named = set(re.findall(r'"\$(\w+)', interactive.specification(chart)))
    assert named
    for theme in ("light", "dark"):
        assert named <= set(palette.colours(theme))
    assert set(palette.colours("light")) == set(palette.colours("dark"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_told_from_the_ground(theme):
    """Text by 4.5 to 1, lines and points by 3 to 1, but for the palest of an order (WCAG 2.2)."""
    colours = palette.colours(theme)
    for name in ("ink", "muted", "link"):
        assert contrast(colours[name], colours["ground"]) >= 4.5, name
    for name in (*palette.CATEGORIES, *(f"s{index}" for index in range(2, 8))):
        assert contrast(colours[name], colours["ground"]) >= 3, name
    for index in range(palette.FILLS):
        assert contrast(colours["ink"], colours[f"v{index}"]) >= 4.5, index


def contrast(one: str, other: str) -> float:
    """Ratio of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_round_ticks_lie_within_and_are_few(lo, span):
    found = charts.rounds(lo, lo + span)
    assert len(found) <= 8
    slack = 1e-6 * max(abs(lo), span)
    assert all(lo - slack <= tick <= lo + span + slack for tick in found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[:1], rtol=1e-3, atol=1e-9 * max(abs(lo), 1))


@given(st.floats(-12, 20), st.floats(0.05, 25))
def test_decades_lie_within_and_are_few(exponent, span):
    lo, hi = 10**exponent, 10 ** (exponent + span)
    found = charts.decades(lo, hi)
    assert len(found) <= 12
    assert all(lo * 0.999 <= tick <= hi * 1.001 for tick in found)
    assert found == sorted(found)


@given(st.lists(st.floats(1, 1e12), min_size=1, max_size=60))
def test_ticks_at_values_never_touch(values):
    scale = charts.value_scale("N", values, str)
    at = np.log([tick for tick, _ in scale.ticks])
    assert {tick for tick, _ in scale.ticks} <= set(values)
    assert max(values) in {tick for tick, _ in scale.ticks}
    assert (np.diff(at) > math.log(scale.limits[1] / scale.limits[0]) / 7 - 1e-9).all()


@given(st.floats(-1e4, 1e4), st.floats(1e-4, 1e4))
def test_ticks_say_where_they_are(lo, span):
    scale = charts.plain_scale("loss", (lo, lo + span), is_log=False)
    written = [float(text.replace("−", "-")) for _, text in scale.ticks]
    assert np.allclose(written, [tick for tick, _ in scale.ticks], rtol=0, atol=2e-3 * span)
    assert len({text.partition(".")[2] and len(text.partition(".")[2]) for _, text in scale.ticks}) <= 1


@given(st.floats(1e-6, 1e6), st.floats(0, 1e6))
def test_levels_enclose_their_range(lo, span):
    found = np.array(charts.levels(lo, lo + span))
    assert len(found) >= 3
    assert found[0] < lo * (1 + 1e-9)
    assert found[-1] > (lo + span) * (1 - 1e-9)
    assert (np.diff(found) > 0).all()


def test_names_of_figures_are_free_and_fit_a_file(chart, tmp_path):
    hall = gallery.Gallery(tmp_path)
    names = [hall.hang(replace(chart, name=name)).name for name in ("a", "a", "", "b" * 300, "b" * 299 + "c", "a")]
    assert names[:3] == ["a", "a-2", "figure"]
    assert names[5] == "a-3"
    assert len(set(names)) == 6
    assert all((tmp_path / f"{name}.png").is_file() for name in names)


def test_powers_of_ten_are_written_as_people_do():
    assert [charts.power_of_ten(value) for value in (1.0, 1000.0, 1e-3, 2e9)] == ["10⁰", "10³", "10⁻³", "2·10⁹"]
