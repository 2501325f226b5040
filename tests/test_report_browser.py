"""The report in a real browser: everything is drawn, nothing is asked of a network, nothing runs off a phone."""

import browser
import laws_data as data
import pytest

import fit_laws

pytestmark = pytest.mark.skipif(
    browser.executable() is None, reason="needs Chromium: `make chromium` where root and apt are there"
)
LOOK = """(async () => {
  document.querySelectorAll("main details").forEach((each) => { each.open = true; });
  for (const plate of document.querySelectorAll(".plate")) {
    plate.scrollIntoView({block: "center"});
    for (let i = 0; i < 200 && !plate.dataset.state; i++) await new Promise((done) => setTimeout(done, 50));
  }
  const count = (plate, what) => plate.querySelectorAll(what).length;
  return [...document.querySelectorAll(".plate")].map((plate) => [plate.dataset.state,
    count(plate, ".live .main-svg"), count(plate, ".live .trace, .live .contour")].join(" "));
})()"""
SIZES = {"desk": {"width": 1280}, "phone": {"width": 390, "height": 844, "mobile": True}}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a sweep of both families, with a failed trial, read from a folder of its own."""
    root = tmp_path_factory.mktemp("results")
    data.write(root, [*data.rows(), data.failed("t5-lost", "Diverged: the loss is not finite")])
    assert fit_laws.main([str(root), "--metric", "cgl", "--metric", "hit@10"]) == 0
    alone = tmp_path_factory.mktemp("alone") / "report.html"
    return (root / "report" / "report.html").rename(alone)


@pytest.fixture(scope="module")
def page():
    with browser.opened() as opened:
        yield opened


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dark", [False, True])
def test_all_is_drawn_without_a_word(page, report, size, dark):
    page.complaints.clear()
    page.requests.clear()
    page.show(report, **SIZES[size], dark=dark)
    plates = page.run(LOOK)
    assert len(plates) > 20
    for state, drawings, traces in map(str.split, plates):
        assert state == "live"
        assert int(drawings) >= 1
        assert int(traces) >= 1
    assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.run("Math.min(...[...document.querySelectorAll('.plate')].map((each) => each.clientWidth))") >= 250
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


def test_the_theme_reaches_figures(page, report):
    seen = set()
    for dark in (False, True):
        page.show(report, width=1280, dark=dark)
        page.run("document.querySelector('.plate').scrollIntoView()")
        page.until("document.querySelector('.live .xtick text') !== null")
        seen.add(page.run("document.querySelector('.live .xtick text').style.fill"))
    assert len(seen) == 2


def test_figures_wait_until_they_are_near(page, report):
    page.show(report, width=1280)
    page.until("document.readyState === 'complete'")
    assert page.run("[...document.querySelectorAll('.plate')].at(-1).dataset.state === undefined")
    assert page.run("[...document.querySelectorAll('.plate')].at(-1).querySelector('.still svg') !== null")
    assert page.run("window.Plotly === undefined || document.querySelectorAll('.plate[data-state=live]').length > 0")


def test_tables_are_copied_as_they_are_meant(page, report):
    page.show(report, width=1280)
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.run("document.querySelector('#trials table').closest('.box').querySelector('button').click()")
    page.until("window.copied !== undefined")
    head, first = (line.split("\t") for line in page.run("window.copied").split("\n")[:2])
    assert head[1:4] == ["4k", "lo", "hi"]
    assert len(head) == len(first) == 1 + 3 * len(data.D)
    lo, value, hi = float(first[2]), float(first[1]), float(first[3])
    assert lo < value < hi
    page.run("delete window.copied")
    page.run("document.querySelector('.plate').parentElement.querySelector('figcaption button').click()")
    page.until("window.copied !== undefined")
    rows = [line.split("\t") for line in page.run("window.copied").splitlines()]
    assert rows[0][0] == "series"
    assert {len(row) for row in rows} == {6}
    assert len(rows) > 100


def test_figures_are_saved_from_the_page(page, report):
    page.show(report, width=390, mobile=True, dark=True)
    page.run("""URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return "#"; };
      [...document.querySelectorAll("figcaption button")].find((each) => each.textContent === "SVG").click()""")
    page.until("window.saved !== undefined")
    saved = page.run("window.saved")
    assert saved.startswith("<svg")
    assert 'xmlns="http://www.w3.org/2000/svg"' in saved
    assert "var(" not in saved  # its colours are those of paper, wherever it is opened


def test_without_scripts_the_still_pictures_stand(page, report):
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.show(report, width=390, mobile=True)
        still = "[...document.querySelectorAll('.still svg')]"
        sizes = page.run(f"{still}.map((each) => each.getBoundingClientRect().height)")
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)
    assert len(sizes) > 20
    assert page.run("document.querySelectorAll('.box > button, figcaption button').length") == 0


def test_on_paper_nothing_is_folded_away(page, report, tmp_path):
    page.show(report, width=1280)
    page.paper(tmp_path / "report.pdf")
    pages = (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n")
    assert pages >= 5
