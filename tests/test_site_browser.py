"""The site in a real browser, from a file: sorting, filters, tabs, keys, links, harmful strings, silence."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import pytest

from tests.browser import Browser, missing
from tests.site_world import HOSTILE, build

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=f"no browser: {missing()}")]
TOYS = "#leaderboard/loo%2Funified-small%2Ftoys/"
METHODS = "#panel tbody .name bdi"
PAGES = ("#methods", "#datasets", "#protocols", "#ledger", "#reading")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(site, window):
    """The ranked table of toys, drawn anew."""
    visit(window, site[0], f"{TOYS}ranking")
    window.told()
    return window


def visit(browser, folder, place):
    browser.open("about:blank")
    browser.open((folder / "index.html").as_uri() + place)


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
    values = [float(text) for text in browser.texts("#panel tbody td.value")]
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
    links = browser.run("return SITE.tables.flatMap((table) => tabsOf(table).map((tab) => linkTo(table, tab.key)))")
    assert len(links) > 20
    for link in [*links, *PAGES]:
        browser.run("location.hash = arguments[0]; draw()", link)
        assert len(browser.run("return document.querySelector('main').innerText")) > 100, link
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
    for place in (*PAGES, f"{TOYS}files", f"{TOYS}ranking"):
        visit(browser, site[0], place)
        for link in browser.run("return [...document.links].map((one) => one.href)"):
            address = urlsplit(link)
            path = url2pathname(address.path)
            assert address.scheme == "file" and path.startswith(str(site[0]))
            assert (site[0] / path).exists(), link
            known = browser.run(
                "const [p, t] = arguments[0].split('/').map(decodeURIComponent);"
                "const page = PAGES.some((one) => one.key === p);"
                "return !p || p === 'main' || (page && (p !== 'leaderboard' || !t || tableOf(t)))",
                address.fragment,
            )
            assert known, link


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


def test_points_of_the_picture_tell_themselves_by_key(browser, site):
    visit(browser, site[0], f"{TOYS}pareto")
    browser.run("document.querySelector('.point').focus()")
    told = browser.texts(".told")[0]
    assert "ndcg@10" in told and "ms per user" in told
    browser.press("Enter")
    assert browser.run("return document.querySelector('dialog').open")


def test_pairs_are_walked_by_arrow_keys(browser, site):
    visit(browser, site[0], f"{TOYS}pairs")
    first = order(browser) or browser.texts(".matrix tbody th bdi")
    browser.run("document.querySelector('.matrix td').focus()")
    browser.press("Down")
    assert browser.texts(".told")[0].startswith(f"{first[1]} is ") and first[0] in browser.texts(".told")[0]


def test_a_phone_scrolls_tables_and_not_the_page(browser, site):
    browser.tools("Emulation.setDeviceMetricsOverride", width=380, height=800, deviceScaleFactor=1, mobile=True)
    try:
        for place in (f"{TOYS}ranking", f"{TOYS}slices", f"{TOYS}pareto", *PAGES):
            visit(browser, site[0], place)
            wide = browser.run("return document.scrollingElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, place
    finally:
        browser.tools("Emulation.clearDeviceMetricsOverride")


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
