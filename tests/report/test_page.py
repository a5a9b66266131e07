"""The page in a real browser: captions that would run, links that would be followed, sorting, filtering, searching."""

import re

import numpy as np
import pyarrow as pa
import pytest
from patience import wait_for
from PIL import ImageOps
from run_tables import table
from shard_data import Sample, detailed, encode, write_tar

import dedup
from dedup.config.load import load_config
from dedup.text import cut, link

HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "</script></style></title><script>alert(1);document.title='owned'</script>",
    "--> ]]> {{ 7*7 }} {% raw %} ${7*7} &lt;b&gt; &#60;script&#62;alert(1)",
    "\"' onmouseover=alert(1) x='\" autofocus onfocus=alert(1)",
    "\u202eesrever \u202a \u2066 \u200f שלום עולם مرحبا",
    "👩‍👩‍👧‍👦🏳️‍🌈🦊 emoji é\u0301\u0301\u0301 ",
    "<svg><animate onbegin=alert(1)><base href=//evil.example><meta http-equiv=refresh content=0;url=//evil.example>",
    "zero\x00width\u200b\ufeff bell\x07 line\u2028sep",
    '<a href=javascript:alert(1)>x</a><iframe srcdoc="<script>parent.alert(1)</script>">',
    "x" * 100_000,
    "🦊" * 100_000,
]
URLS = [
    "javascript:alert(1)//https://a",
    'https://example.org/"onmouseover=alert(1)//',
    "data:text/html,<script>alert(1)</script>",
    "HTTPS://example.org/<b>?q='\"&amp;",
    " https://example.org/space before",
    "http://[broken",
    "//evil.example/x.jpg",
    "https://example.org/" + "a" * 5_000,
    "ftp://example.org/x",
    "https://example.org/\u202egpj.exe",
    "jAvAsCrIpT:alert(1)",
]


@pytest.fixture(scope="module", autouse=True)
def _jinja2(require_extra, with_reports):
    require_extra("jinja2")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Eleven pictures with two copies each; captions, urls, keys and a shard's name that would run if they could."""
    folder = tmp_path_factory.mktemp("hostile")
    samples = []
    for number, (caption, url) in enumerate(zip(HOSTILE, URLS, strict=True)):
        picture = detailed(number)
        for copy, data in enumerate((encode(picture), encode(picture, quality=60), encode(picture))):
            key = f"{number:02d}{copy}<script>alert(1)<" if number == 2 else f"{number:02d}{copy}<b onload=alert(1)>'\"&\u202e🦊"
            samples.append(Sample(key, data, caption, url=url))
    for number in range(3):  # refused pairs
        picture = detailed(50 + number)
        other = picture.copy()
        other.paste(ImageOps.invert(picture.crop((0, 0, 70, 60))), (40, 30))
        samples += [Sample(f"r{number}{side}", encode(one), HOSTILE[0]) for side, one in enumerate((picture, other))]
    samples.append(Sample("<script>alert(2)</script>", b"broken", HOSTILE[1]))
    shards = folder / "<img src=x onerror=alert(3)>"
    write_tar(shards / "a&b'\"<x>.tar", samples)
    listed = folder / "list.txt"
    listed.write_text(f"key:{samples[-2].key}\nurl:{URLS[0]}\n")
    run_dir = folder / "run<b>'\"&"
    given = [f"input.shards={shards}/*.tar", f"output.run_dir={run_dir}", "engine.workers=1", f"exclude.list={listed}"]
    summary = dedup.run(load_config(None, given))
    assert summary.report == f"{run_dir}/report.html"
    return run_dir


@pytest.fixture(scope="module")
def open_page(require_extra, require_browser):
    """Open a file, and note whatever it does that it should not."""
    playwright = require_extra("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=require_browser, args=["--no-sandbox"])

        def start(path, **options):
            context = browser.new_context(viewport={"width": 1300, "height": 900}, **options)
            page, troubles = context.new_page(), []
            page.on("dialog", lambda dialog: (troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
            page.on("console", lambda message: troubles.append(f"console {message.text}"))
            page.on("pageerror", lambda error: troubles.append(f"error {error}"))
            page.on("popup", lambda popup: troubles.append(f"popup {popup.url}"))
            page.on("framenavigated", lambda frame: troubles.append(f"went to {frame.url}") if page.url != frame.url else None)
            page.on(
                "request",
                lambda request: troubles.append(request.url) if not request.url.startswith(("file:", "data:image/jpeg")) else None,
            )
            page.goto(path.as_uri())
            return page, troubles

        yield start
        browser.close()


def until(page, expression):
    """Wait for an expression; Playwright's own way needs eval, which the page's policy refuses."""
    wait_for(lambda: page.evaluate(expression), expression)


def test_nothing_of_the_data_runs(hostile, open_page):
    page, troubles = open_page(hostile / "report.html")
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.evaluate("document.querySelectorAll('iframe, base, link, object, embed, form, main svg animate').length") == 0
    attributes = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((e) => [...e.attributes]).filter((a) => /^on|^style$/.test(a.name)).length"
    )
    assert attributes == 0
    assert "owned" not in page.title()
    assert page.title() == "Duplicates in run<b>'\"&"
    hrefs = page.evaluate("[...document.querySelectorAll('main a')].map((a) => [a.protocol, a.rel])")
    assert hrefs
    assert all(protocol in ("https:", "http:") and "noreferrer" in rel and "noopener" in rel for protocol, rel in hrefs)
    texts = page.evaluate("[...document.querySelectorAll('.caption')].map((e) => e.textContent)")
    for caption in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[6], HOSTILE[8]):
        assert any(" ".join(caption.split()) in text for text in texts), caption
    assert page.evaluate("document.querySelectorAll('.card b[onload], .caption *:not(bdi):not(small)').length") == 0
    assert any("100,000 characters" in text for text in texts)
    assert max(map(len, texts)) < 400
    # a right-to-left override ends with the text it stands in
    assert page.evaluate(
        "[...document.querySelectorAll('.caption bdi, .where bdi')].every((e) => getComputedStyle(e).unicodeBidi === 'isolate')"
    )
    for section in page.query_selector_all("main section"):
        section.scroll_into_view_if_needed()
    for details in page.query_selector_all("details"):
        details.evaluate("(e) => { e.open = true; }")
    page.hover(".card a >> nth=0")
    page.wait_for_timeout(300)
    assert page.evaluate("[...document.images].every((i) => i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1300
    assert troubles == []


def test_the_policy_refuses_what_would_run_all_the_same(hostile, open_page):
    page, troubles = open_page(hostile / "report.html")
    failures = []
    page.on("requestfailed", lambda request: failures.append((request.url, request.failure)))
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        const image = document.createElement("img");
        image.setAttribute("onerror", "document.title = 'owned'");
        image.src = "https://evil.example/x.png";
        document.body.append(image);
        fetch("https://evil.example/").catch(() => {});
    }""")
    page.wait_for_timeout(300)
    assert "owned" not in page.title()
    refused = [trouble for trouble in troubles if "Content Security Policy" in trouble]
    assert len(refused) >= 3, troubles
    # Playwright tells of requests that the browser then does not make
    assert {trouble for trouble in troubles if trouble not in refused} <= {url for url, why in failures if why == "csp"}, (
        troubles,
        failures,
    )


def test_search_filter_and_sort(hostile, open_page):
    page, troubles = open_page(hostile / "report.html")
    shown = "#largest .group:not([hidden])"
    n_groups = page.locator(shown).count()
    assert n_groups >= 10

    # one list
    tools = page.locator("#largest .tools")
    tools.locator("input[type=search]").fill("ONERROR owned")
    until(page, "document.querySelectorAll('#largest .group:not([hidden])').length === 1")
    assert HOSTILE[0] in page.locator(shown).inner_text()
    assert tools.locator(".said").inner_text() == f"1 of {n_groups}"
    tools.locator("input[type=search]").fill("no such words <script")
    until(page, "document.querySelectorAll('#largest .group:not([hidden])').length === 0")
    assert page.locator("#largest .empty:not([hidden])").inner_text() == "Nothing matches."
    tools.locator("input[type=search]").fill("")
    until(page, f"document.querySelectorAll('#largest .group:not([hidden])').length === {n_groups}")
    tools.locator("input[type=number]").fill("1000")
    until(page, "document.querySelectorAll('#largest .group:not([hidden])').length === 0")
    tools.locator("input[type=number]").fill("2")
    until(page, f"document.querySelectorAll('#largest .group:not([hidden])').length === {n_groups}")
    values = "[...document.querySelectorAll('#largest .group')].map((e) => Number(e.dataset.weakest))"
    before = page.evaluate(values)
    tools.locator("select").select_option(label="weakest first")
    assert page.evaluate(values) == sorted(before)
    tools.locator("select").select_option(label="in the order of the report")
    assert page.evaluate(values) == before

    # a table
    cells = "[...document.querySelectorAll('#table-of-groups tbody tr')].map((r) => Number(r.cells[{}].dataset.value))"
    button = page.locator("#table-of-groups thead button", has_text="weakest")
    button.click()
    falling = page.evaluate(cells.format(7))
    assert falling == sorted(falling, reverse=True)
    assert page.locator("#table-of-groups th[aria-sort=descending]").inner_text().startswith("weakest")
    button.click()
    assert page.evaluate(cells.format(7)) == sorted(falling)
    page.locator("#table-of-groups thead button", has_text="most frequent caption").click()
    assert page.locator("#table-of-groups th[aria-sort=ascending]").count() == 1
    captions = page.evaluate("[...document.querySelectorAll('#table-of-groups tbody tr')].map((r) => r.cells[5].textContent)")
    assert captions == page.evaluate(
        "(all) => all.sort(new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' }).compare)", captions
    )

    # choices
    select = page.locator("#configuration .tools select")
    select.select_option("set")
    chosen = page.locator("#configuration tbody tr:not([hidden])")
    assert "input.shards" in chosen.first.inner_text()
    assert all("set" in text.split() for text in chosen.all_inner_texts())

    # everywhere
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("search.min_similarity")
    until(page, "document.querySelector('nav a[href=\"#configuration\"]').dataset.found === undefined")
    select.select_option("")
    until(page, "document.querySelectorAll('#largest .group:not([hidden])').length === 0")
    page.locator("#find input").fill("")
    until(page, f"document.querySelectorAll('#largest .group:not([hidden])').length === {n_groups}")
    page.locator("#find input").fill("search.min_similarity")
    until(page, "Number(document.querySelector('nav a[href=\"#configuration\"]').dataset.found) >= 1")
    assert "without" in page.locator("nav a[href='#largest']").get_attribute("class")
    assert troubles == []


def test_it_reads_without_javascript_in_the_dark_and_on_a_phone(hostile, open_page):
    page, _ = open_page(hostile / "report.html", java_script_enabled=False)
    text = page.inner_text("main")
    assert "Largest groups" in text
    assert page.locator(".tools").count() == 0
    page.screenshot(path=str(hostile.parent / "plain.png"))
    page, troubles = open_page(hostile / "report.html", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 21)"
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=str(hostile.parent / "phone.png"))
    assert troubles == []


def test_a_group_of_very_many(tmp_path, open_page):
    """600 copies of one picture: 24 of them are shown, keepers first, the page says how many there are."""
    picture = detailed(1)
    samples = [Sample(f"c{number:04d}", encode(picture, quality=40 + number % 50), f"caption {number}") for number in range(600)]
    samples += [Sample(f"o{number}", encode(detailed(100 + number))) for number in range(5)]
    write_tar(tmp_path / "a.tar", samples)
    given = [f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run", "engine.workers=2", "search.views=false"]
    dedup.run(load_config(None, given))
    page, troubles = open_page(tmp_path / "run" / "report.html")
    counts = table(tmp_path / "run", "statistics")["duplication_count"].to_pylist()
    assert max(counts) > 500
    group = page.locator("#largest .group").first
    assert group.locator(".card").count() == 24
    assert group.locator(".card").first.get_attribute("class") == "card kept"
    assert f"24 of {max(counts)} are shown" in group.inner_text()
    values = [float(text) for text in group.locator(".pill.near").all_text_contents()]
    assert values == sorted(values, reverse=True)
    known = np.sort(
        table(tmp_path / "run", "duplicates")
        .filter(pa.compute.equal(table(tmp_path / "run", "duplicates")["kind"], "near"))["similarity_to_keeper"]
        .to_numpy()
    )
    assert abs(values[0] - known[-1]) < 1e-4
    assert abs(values[-1] - known[0]) < 1e-4
    assert troubles == []


def test_texts_and_links():
    assert [link(url) != "" for url in URLS] == [False, True, False, True, True, False, False, False, False, True, False]
    assert cut("👩‍👩‍👧" * 200, most=301).shown.endswith("👩…")
    assert not re.search("[\x00-\x08\x7f]", cut(HOSTILE[7]).shown)


def test_a_pair_is_laid_over_each_other_as_it_was_registered(hostile, open_page):
    """The difference of a mirrored copy and its picture is next to nothing where they are registered."""
    page, troubles = open_page(hostile / "report.html")
    buttons = page.locator(".pair[data-overlay] .overlay button")
    assert buttons.count() > 0
    pair = page.locator("#refused .pair[data-overlay]").first
    pair.get_by_role("button", name="difference").click()
    stage = pair.locator(".stage")
    assert stage.is_visible()
    assert "matrix(" in stage.locator("img").nth(1).evaluate("(image) => image.style.transform")
    assert stage.evaluate("(stage) => stage.classList.contains('difference')")
    pair.get_by_role("button", name="flicker").click()
    until(page, "document.querySelector('#refused .stage:not([hidden]) img + img').style.visibility === 'hidden'")
    pair.get_by_role("button", name="flicker").click()
    assert stage.is_hidden()
    assert troubles == []
