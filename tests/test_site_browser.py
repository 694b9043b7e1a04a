"""The site in a real browser, from a file: sorting, filters, tabs, keys, links, harmful strings, silence."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pytest

from tests.browser import Browser, missing
from tests.site_world import EVERY_VIEW, HOSTILE, build, go, too_wide, visit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=f"no browser: {missing()}")]
TOYS = "#leaderboard/loo%2Funified-small%2Ftoys/"
METHODS = "#panel tbody .name bdi"
PAGES = ("#methods", "#datasets", "#protocols", "#ledger", "#reading")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def window(tmp_path_factory, site):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        visit(browser, site[0], "")
        yield browser


@pytest.fixture
def browser(window):
    """The ranked table of toys, drawn anew: all that was chosen stands in the address."""
    go(window, f"{TOYS}ranking")
    window.told()
    return window


def order(browser):
    return browser.texts(METHODS)


def open_row(browser, method):
    script = "[...document.querySelectorAll('.name button')].find((one) => one.textContent === arguments[0]).click()"
    browser.run(script, method)


def sorted_as(browser, place):
    return browser.run("return document.querySelectorAll('#panel thead th')[arguments[0]].ariaSort", place)


def test_the_table_is_ranked_and_says_what_it_is(browser, site):
    (summary,) = (s for s in site[1] if s.dataset == "toys" and s.shared["protocol"]["name"] == "loo")
    assert order(browser) == [row.method for row in summary.rows]
    text = browser.run("return document.body.innerText")
    assert "One trained model per method (seed 0)." in text and "floors: popularity" in text
    assert browser.texts("#panel tbody .verdict")[0].split() == ["▲", "better"]
    assert "needs 5% more" in text  # a run without a result is shown with its reason


def test_headers_sort_both_ways_and_say_so(browser):
    ranked = order(browser)
    assert sorted_as(browser, 0) == "ascending"
    browser.click("#panel thead th:nth-child(3) button")  # ndcg@10: best first
    assert order(browser) == ranked and [sorted_as(browser, i) for i in (0, 2)] == ["none", "descending"]
    browser.click("#panel thead th:nth-child(3) button")
    assert sorted_as(browser, 2) == "ascending"
    values = [float(text) for text in browser.texts("#panel tbody td.value > :first-child")]
    assert values == sorted(values) and order(browser)[-1] == ranked[0]
    browser.click("#panel thead th:nth-child(2) button")  # names
    assert sorted(order(browser)) == sorted(ranked) and order(browser) != ranked


def test_a_header_sorts_by_key(browser):
    browser.run("document.querySelector('#panel thead th:nth-child(5) button').focus()")
    browser.press("Enter")
    assert sorted_as(browser, 4) == "descending"


def test_filters_keep_places_and_tell_how_many(browser):
    everything = len(order(browser))
    browser.type("input[type=search]", "sasrec")
    assert order(browser) == ["sasrec", "sasrec@sampled"] or order(browser) == ["sasrec@sampled", "sasrec"]
    assert browser.texts("#count") == [f"2 of {everything} methods"]
    assert "1" not in browser.texts("#panel tbody td.rank")  # places are those among all methods
    browser.run(
        "const i = document.querySelector('input[type=search]'); i.value = ''; i.dispatchEvent(new Event('input'))"
    )
    browser.click(".chips button")  # floors
    assert "popularity" not in order(browser) and len(order(browser)) == everything - 1
    browser.click(".chips button")
    assert len(order(browser)) == everything


def test_tabs_follow_the_arrow_keys(browser):
    browser.run("document.querySelector('#tab-ranking').focus()")
    browser.press("Right")
    assert browser.run("return document.activeElement.id") == "tab-metrics"
    assert browser.run("return document.querySelector('#tab-metrics').ariaSelected") == "true"
    assert browser.run("return document.querySelector('#panel').getAttribute('aria-labelledby')") == "tab-metrics"
    browser.press("End")
    assert browser.run("return document.activeElement.id") == "tab-files"
    browser.press("Home")
    assert browser.run("return document.activeElement.id") == "tab-ranking"


def test_every_view_of_every_table_is_drawn_in_silence(browser, site):
    visit(browser, site[0], "")
    drawn = browser.run(
        EVERY_VIEW + "return [...links, ...arguments[0]].map((link) => [link, see(link).innerText.length])",
        PAGES,
    )
    assert len(drawn) > 25 and not [link for link, length in drawn if length <= 100]
    assert [line for line in browser.told() if "favicon" not in line] == []
    assert browser.run("return window.harmed") is None


def test_no_request_leaves_the_page(browser, site):
    browser.requests()
    visit(browser, site[0], "#ledger")
    asked = {urlsplit(address) for address in browser.requests()} - {urlsplit("about:blank")}
    assert {address.scheme for address in asked} == {"file"}
    names = {unquote(address.path).rpartition("/")[2] for address in asked}
    assert names == {"index.html", "ledger-x.svg"}
    assert browser.run("return [...document.images].every((one) => one.complete && one.naturalWidth > 0)")


def test_every_link_leads_somewhere(browser, site):
    links = browser.run(
        "const known = (hash) => { const [p, t] = hash.slice(1).split('/').map(decodeURIComponent);"
        "  const page = PAGES.some((one) => one.key === p);"
        "  return !p || p === 'main' || (page && (p !== 'leaderboard' || !t || !!tableOf(t))); };"
        "return arguments[0].flatMap((place) => { keep('replaceState', place); draw();"
        "  return [...document.links].map((one) => [one.href, known(one.hash)]); })",
        [*PAGES, f"{TOYS}files", f"{TOYS}ranking"],
    )
    assert len(links) > 60 and {urlsplit(link).scheme for link, _ in links} == {"file"}
    for link in {link: known for link, known in links}:
        path = url2pathname(urlsplit(link).path)
        assert path.startswith(str(site[0])) and Path(path).exists(), link
    assert not [link for link, known in links if not known]


def test_provenance_is_one_click_away(browser):
    open_row(browser, "sasrec")
    assert browser.run("return document.querySelector('dialog').open")
    text = browser.run("return document.querySelector('dialog').innerText")
    for what in ("config-sasrec", "data-toys", "c0ffee", "Toy CPU", "numpy", "per_user.npz", "seed=0"):
        assert what in text, what
    browser.press("Escape")
    assert not browser.run("return document.querySelector('dialog').open")


def test_harmful_strings_are_text(browser):
    assert HOSTILE in order(browser)
    browser.run(
        "[...document.querySelectorAll('.name button')].find((one) => one.textContent.includes('</script>')).click()"
    )
    assert HOSTILE in browser.texts("dialog bdi")  # its configuration, too
    assert browser.run("return document.images.length + document.querySelectorAll('script').length") == 2
    assert browser.run("return getComputedStyle(document.querySelector('#panel bdi')).unicodeBidi") == "isolate"
    assert browser.run("return window.harmed") is None


def test_points_of_the_picture_tell_themselves_by_key(browser):
    go(browser, f"{TOYS}pareto")
    browser.run("document.querySelector('.point').focus()")
    told = browser.texts(".told")[0]
    assert "ndcg@10" in told and "ms per user" in told
    browser.press("Enter")
    assert browser.run("return document.querySelector('dialog').open")


def test_pairs_are_walked_by_arrow_keys(browser):
    go(browser, f"{TOYS}pairs")
    first = browser.texts(".matrix tbody th bdi")
    browser.run("document.querySelector('.matrix td').focus()")
    browser.press("Down")
    assert browser.texts(".told")[0].startswith(f"{first[1]} is ") and first[0] in browser.texts(".told")[0]


def test_a_phone_scrolls_tables_and_not_the_page(browser):
    browser.tools("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=True)
    try:
        assert too_wide(browser, [f"{TOYS}ranking", f"{TOYS}slices", f"{TOYS}pareto", *PAGES]) == []
    finally:
        browser.tools("Emulation.clearDeviceMetricsOverride")


def test_print_leaves_nothing_out(browser):
    browser.tools("Emulation.setDeviceMetricsOverride", width=1039, height=700, deviceScaleFactor=1, mobile=False)
    browser.tools("Emulation.setEmulatedMedia", media="print")
    try:
        views = browser.run("return tabsOf(VIEW.table).map((tab) => linkTo(VIEW.table, tab.key))")
        assert too_wide(browser, [*views, *PAGES]) == []
        ink = "document.documentElement.dataset.theme = 'dark'; return getComputedStyle(document.body).color"
        assert browser.run(ink) == "rgb(0, 0, 0)"
    finally:
        browser.run("delete document.documentElement.dataset.theme")
        browser.tools("Emulation.setEmulatedMedia", media="")
        browser.tools("Emulation.clearDeviceMetricsOverride")


def test_an_address_brings_back_filters_order_and_row(browser, site):
    browser.type("input[type=search]", "r")
    browser.click(".chips button")  # floors
    browser.click("#panel thead th:nth-child(2) button")
    open_row(browser, "sasrec")
    kept = browser.run("return [location.hash, [...document.querySelectorAll('.name bdi')].map((o) => o.textContent)]")
    visit(browser, site[0], kept[0])
    assert order(browser) == kept[1] and len(kept[1]) > 1 and sorted_as(browser, 1) == "ascending"
    assert browser.run("return document.querySelector('input[type=search]').value") == "r"
    assert browser.texts("#detail-title") == ["sasrec"] and browser.run("return document.querySelector('dialog').open")
    browser.press("Escape")
    assert browser.run("return location.hash.includes('row=')") is False


def test_the_browser_goes_back_to_the_table_before(browser):
    before = browser.run("return location.hash")
    browser.click("#tab-metrics")
    browser.run("location.hash = '#datasets'")
    browser.run("history.go(-2)")
    there = "return location.hash === arguments[0] && !!document.querySelector('#tab-ranking[aria-selected=true]')"
    assert browser.eventually(there, before)


def test_the_keyboard_keeps_its_place(browser):
    go(browser, f"{TOYS}pareto")
    browser.run("document.querySelector('#panel select').focus()")
    browser.press("Down")
    assert browser.run("return [document.activeElement.tagName, document.activeElement.value]") == ["SELECT", "train"]
    browser.run("location.hash = '#methods'")
    assert browser.eventually("return document.activeElement.id === 'main'")
    browser.run("document.querySelector('.skip').click()")  # the address stays that of the page
    assert browser.run("return [document.activeElement.id, location.hash]") == ["main", "#methods"]


def test_an_order_is_that_of_its_column_in_every_table(browser):
    browser.run("document.querySelector('#panel thead tr:last-child th:nth-child(8) button').click()")
    title = browser.run("return document.querySelector('#panel [aria-sort=descending]').textContent")
    browser.run("goTo(SITE.tables.find((table) => Object.keys(table.settings).length > 0))")
    assert browser.run("return document.querySelector('#panel [aria-sort=descending]').textContent") == title


def test_every_table_has_a_caption_and_no_heading_is_skipped(browser):
    wrong = browser.run(
        EVERY_VIEW + "return [...links, ...arguments[0]].filter((link) => { const main = see(link);"
        "  const levels = [...main.querySelectorAll('h1, h2, h3, h4, h5')].map((one) => Number(one.tagName[1]));"
        "  const tables = [...main.querySelectorAll('table')];"
        "  return levels[0] !== 1 || levels.some((level, i) => i && level > levels[i - 1] + 1)"
        "    || tables.some((table) => !table.caption || !table.caption.textContent.trim()); })",
        PAGES,
    )
    assert wrong == []


def test_a_very_long_name_breaks_no_layout(browser):
    long = "x" * 400
    views = browser.run("return tabsOf(VIEW.table).map((tab) => linkTo(VIEW.table, tab.key))")
    kept = browser.run(
        "const [row] = VIEW.table.rows; const name = row.method; row.method = arguments[0]; return name", long
    )
    try:
        assert too_wide(browser, [*views, "#methods"]) == []
        go(browser, f"{TOYS}ranking")
        assert browser.run("return document.querySelector('#panel .name').offsetWidth") < 400
        go(browser, f"{TOYS}pareto")
        assert max(map(len, browser.texts(".point-label"))) <= 40
    finally:
        browser.run("VIEW.table.rows[0].method = arguments[0]", kept)


def test_many_methods_are_shown_and_their_pairs_are_bounded(browser):
    script = (
        "const table = tableOf(VIEW.table.id); const few = [...table.rows];"
        "for (let i = few.length; i < 200; i++) table.rows.push({ ...few[0], rank: i + 1, method: `m${i}` });"
        "try { return ['ranking', 'pairs'].map((tab) => { keep('replaceState', linkTo(table, tab)); draw();"
        "  const panel = document.getElementById('panel');"
        "  return [panel.querySelectorAll('tbody tr').length, !!panel.querySelector('.notice')]; }); }"
        "finally { table.rows.length = few.length; }"
    )
    absent = browser.run("return VIEW.table.absent.length")
    assert browser.run(script) == [[200 + absent, False], [80, True]]


def test_the_theme_is_chosen_and_kept(browser, site):
    def ground():
        return browser.run("return getComputedStyle(document.body).backgroundColor")

    browser.click("#theme")
    light = ground()
    browser.click("#theme")
    assert browser.texts("#theme") == ["Theme: dark"] and ground() != light
    visit(browser, site[0], "#methods")
    assert browser.texts("#theme") == ["Theme: dark"]
    browser.click("#theme")
    assert browser.texts("#theme") == ["Theme: auto"]
