"""The page of a report in a real browser."""

from __future__ import annotations

import pytest
from browser import CHROMIUM, Browser
from reported import BASELINE, complete, stored

from benchmarks.free_study import OurStudy
from search.report_html import html_report
from search.study_report import study_report
from storage import Outcome

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
SIZES = [(1000, False), (1000, True), (390, False), (390, True)]
# Where a trial is drawn: [x, y] in the window.
PLACE = """
(() => {
  const plot = document.getElementById("front"), area = plot._fullLayout;
  const trace = plot.data.find((trace) => trace.customdata?.includes(NUMBER));
  const i = trace.customdata.indexOf(NUMBER), box = plot.getBoundingClientRect();
  const at = (axis, value) => axis._offset + axis.d2p(value);
  return [box.left + at(area.xaxis, trace.x[i]), box.top + at(area.yaxis, trace.y[i])];
})()
"""


@pytest.fixture(scope="module")
def browser():
    opened = Browser()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    outcomes = [
        BASELINE,
        *(complete(0.9 - 0.01 * i, 900 / (1 + i), (0.5, 0.45, 0.55)) for i in range(12)),
        complete(0.1, 10),
        Outcome("failed", HOSTILE),
    ]
    found = stored(folder, outcomes, name=f"a {HOSTILE}")
    path = folder / "report.html"
    path.write_text(html_report(study_report(found)))
    return path


@pytest.fixture
def at(browser, page):
    """Open the page, and check when the test ends that nothing went wrong in it."""

    def _open(width=1000, dark=False):
        browser.open(page, width=width, dark=dark)
        browser.until("document.querySelector('#front .scatterlayer .point')")
        return browser

    yield _open
    assert browser.problems == []
    assert browser.requests == [page.as_uri()]
    assert browser.value("window.hacked === undefined")
    width = browser.value("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, "the page scrolls sideways"


def point_at(browser, number):
    browser.value("document.getElementById('front').scrollIntoView({block: 'center'})")
    return browser.value(PLACE.replace("NUMBER", str(number)))


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_pointing_at_a_trial_names_it_and_a_click_opens_it(at, width, dark):
    browser = at(width, dark)
    ink, ground = browser.value(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        ".map((text) => text.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b))"
    )
    assert (ink > 600 > 200 > ground) if dark else (ground > 600 > 200 > ink)
    text = browser.value("document.getElementById('front')._fullLayout.font.color")
    assert text == ("#e8eaed" if dark else "#1c1e21")
    x, y = point_at(browser, 3)
    browser.move(x + 60, y + 60)
    browser.move(x, y)
    browser.until("document.querySelector('#front .hovertext')?.textContent.includes('trial 3')")
    hover = browser.value("document.querySelector('#front .hovertext').textContent")
    assert "size_bytes: 300 B" in hover
    assert "level=3" in hover
    browser.click(x, y)
    browser.until("document.getElementById('panel').dataset.trial === '3'")
    panel = browser.value("document.getElementById('panel').innerText")
    assert "Trial 3: complete" in panel
    assert "[0.4500, 0.5500]" in panel
    assert "prune" in panel


def test_axes_curves_keyboard_and_a_change_of_the_scheme(at):
    browser = at()
    choose = (
        "(() => {{ const made = document.getElementById('{0}'); made.value = '{1}';"
        " made.dispatchEvent(new Event('change')); }})()"
    )
    browser.value(choose.format("x", "latency_ratio"))
    assert browser.value("document.getElementById('front').layout.xaxis.title.text") == (
        "latency_ratio"
    )
    for what, title in (("size_bytes", "best size_bytes"), ("hypervolume", "hypervolume, share")):
        browser.value(choose.format("what", what))
        shown = "document.getElementById('progress').layout.yaxis.title.text"
        assert browser.value(shown) == title
    browser.value(choose.format("over", "seconds"))
    found = browser.value("document.getElementById('progress').layout.xaxis.title.text")
    assert found == "seconds of searching"
    browser.value("document.querySelector('tr.picked button').focus()")
    browser.press("Enter", 13, "\r")
    browser.until("document.activeElement.textContent.startsWith('Trial ')")
    number = browser.value("document.getElementById('panel').dataset.trial")
    assert browser.value("String(data.picked)") == number
    browser.value("show(14)")
    assert HOSTILE in browser.value("document.getElementById('panel').textContent")
    drawn = "[...document.querySelectorAll('#lines polyline')]"
    assert browser.value(f"{drawn}.length") == 13
    browser.value(f"{drawn}.at(-1).dispatchEvent(new Event('click', {{bubbles: true}}))")
    assert browser.value(f"{drawn}.at(-1).dataset.number") == browser.value(
        "document.getElementById('panel').dataset.trial"
    )
    browser.send(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    browser.until("document.getElementById('front')._fullLayout.font.color === '#e8eaed'")


def test_knobs_of_layers_are_named_by_their_layers(at):
    names = [
        "prune.level",
        "q.precision@conv1",
        "q.precision@layer3.block.17.conv2",
        "p.one",
        "r.one",
    ]
    title = (
        "[...document.querySelectorAll('#lines text.title')].map((t) => t.firstChild.textContent)"
    )
    found = at().value(
        f"(() => {{ const names = {names}; const axis = data.lines.axes[0];"
        " data.lines.axes = names.map((name) => ({...axis, name})); drawLines();"
        f" return {title}; }})()"
    )
    assert found == ["level", "conv1", "…block.17.conv2", "p.one", "r.one"]


@pytest.mark.parametrize("outcomes", [[], [BASELINE]])
def test_a_page_with_little_to_show_has_no_errors(browser, tmp_path, outcomes):
    path = tmp_path / "report.html"
    path.write_text(html_report(study_report(stored(tmp_path, outcomes))))
    browser.open(path, width=390, dark=True)
    assert browser.problems == []
    assert browser.value("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_many_trials_are_drawn_and_those_without_details_say_where_they_are(browser, tmp_path):
    study = OurStudy(tmp_path / "big.db", 30)
    study.fill(1600)
    path = tmp_path / "report.html"
    path.write_text(html_report(study_report(study.read())))
    browser.open(path, width=1000, dark=False)
    count = "document.getElementById('front').data.reduce((sum, t) => sum + t.x.length, 0)"
    assert browser.value(count) == 1600 + (browser.value("data.picked") is not None)
    browser.value("show(700)")
    assert "naslite show s 700" in browser.value("document.getElementById('panel').innerText")
    assert browser.problems == []
