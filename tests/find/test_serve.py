"""The service: over HTTP on loopback, with a fake lookup, a real run, and a real browser."""

import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import httpx
import pytest
from patience import HANGS_S, wait_for
from shard_data import Sample, detailed, encode, write_shards, write_tar

import dedup
from dedup.errors import InputError
from dedup.find.answers import Answer, Match

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script> \u202eesrever 🦊 "
get, post = partial(httpx.get, timeout=HANGS_S), partial(httpx.post, timeout=HANGS_S)


class FakeLookup:
    """Matches every image with two training images of which one is a copy."""

    run_dir = "/secret/place/run"
    n_images = 12_345

    def __init__(self):
        self.wait = threading.Event()
        self.wait.set()
        self.asked = []

    def search_bytes(self, images, *, k, min_similarity, judge_pixels):
        assert self.wait.wait(HANGS_S)
        self.asked.append((k, min_similarity))
        answers = []
        for name, data in images:
            if data.startswith(b"huge"):
                answers.append(Answer(name, [], "too_many_pixels: 10^9", "too_many_pixels"))
            elif not data.startswith((b"\x89PNG", b"\xff\xd8")):
                answers.append(Answer(name, [], "undecodable_image: no image", "undecodable_image"))
            else:
                copy = Match(
                    7,
                    "k7",
                    "/secret/place/00000.tar",
                    "javascript:alert(1)",
                    HOSTILE + "x" * 100_000,
                    0.99,
                    36,
                    7,
                    True,
                    "none",
                    True,
                    0.01,
                )
                alike = Match(8, "k8", "/secret/place/00001.tar", "https://example.org/8", "plain", 0.8, 1, 8, True, "crop mirror", None,
                              trouble="/secret/place/00001.tar can't be read")  # fmt: skip
                answers.append(Answer(name, [copy, alike][:k]))
        return answers

    def preview(self, sample_id, side):
        if sample_id != 7:
            raise InputError("/secret/place/00001.tar is gone")
        return encode(detailed(1).resize((side, side)))


@pytest.fixture(scope="module")
def start(require_extra):
    require_extra("fastapi")
    uvicorn = require_extra("uvicorn")
    from dedup.find.serve import ServiceOptions, make_app

    running = []

    def run(lookup, **options):
        server = uvicorn.Server(uvicorn.Config(make_app(lookup, ServiceOptions(**options)), port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_for(lambda: server.started, "the server has started")
        running.append((server, thread))
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield run
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def fake(start):
    lookup = FakeLookup()
    return start(lookup, max_bytes=200_000), lookup


def metrics(url):
    return get(f"{url}/metrics").text


def test_an_image_gives_its_matches_and_no_path_of_the_server(fake):
    url, lookup = fake
    response = post(f"{url}/search?k=2&min_similarity=0.5", content=encode(detailed(0)))
    assert response.status_code == 200
    found = response.json()
    assert found["is_copy"] is True
    assert [match["key"] for match in found["matches"]] == ["k7", "k8"]
    assert set(found["matches"][0]) == set(Match.__dataclass_fields__)
    assert "/secret" not in response.text
    assert lookup.asked[-1] == (2, 0.5)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("query", "body", "status", "reason"),
    [
        ("", b"", 422, "empty_image"),
        ("", b"no image", 422, "undecodable_image"),
        ("", b"huge", 413, "too_many_pixels"),
        ("", bytes(300_000), 413, "too_many_bytes"),
        ("?k=0", b"x", 422, "bad_k"),
        ("?k=101", b"x", 422, "bad_k"),
        ("?k=ten", b"x", 422, "bad_k"),
        ("?min_similarity=2", b"x", 422, "bad_min_similarity"),
        ("?min_similarity=nan", b"x", 422, "bad_min_similarity"),
        ("?min_similarity=much", b"x", 422, "bad_min_similarity"),
    ],
)
def test_what_is_refused_comes_with_the_reason(fake, query, body, status, reason):
    response = post(f"{fake[0]}/search{query}", content=body)
    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert response.json()["error"]


def test_what_a_query_may_hold_is_said(fake):
    url = fake[0]
    assert post(f"{url}/search?k=ten").json()["error"] == "Refused: k: expected a whole number from 1 to 100"
    assert post(f"{url}/search?min_similarity=2").json()["error"] == "Refused: min_similarity: expected a cosine from -1 to 1"
    assert get(f"{url}/preview/7?side=5").json() == {
        "reason": "bad_side",
        "error": "Refused: side: expected a whole number from 32 to 1024",
    }


def test_a_body_without_end_is_cut_off(fake):
    def endless():
        while True:  # until the connection is closed
            yield bytes(50_000)

    with suppress(httpx.TransportError):  # it is told no while it goes on sending
        assert post(f"{fake[0]}/search", content=endless()).status_code == 413
    assert get(f"{fake[0]}/health").status_code == 200


def test_other_sites_may_not_ask(fake):
    url, image = fake[0], encode(detailed(0))
    assert post(f"{url}/search", content=image, headers={"Origin": "https://evil.example"}).status_code == 403
    assert post(f"{url}/search", content=image, headers={"Origin": "null"}).status_code == 403
    assert post(f"{url}/search", content=image, headers={"Origin": url}).status_code == 200
    unknown = get(f"{url}/", headers={"Host": "evil.example"})
    assert (unknown.status_code, unknown.json()["reason"]) == (421, "unknown_host")
    assert unknown.json()["error"] == "Refused: expected a request to localhost, 127.0.0.1, [::1]"
    for host in ("", "localhost.evil.example", "[::1", "[::2]:80"):
        assert get(f"{url}/health", headers={"Host": host}).status_code == 421, host
    for host in ("LOCALHOST:80", "[::1]:8000", "[::1]"):
        assert get(f"{url}/health", headers={"Host": host}).status_code == 200, host


def test_a_proxys_name_may_be_allowed(start):
    url = start(FakeLookup(), allowed_hosts=("images.example", "*.inside.example"))
    assert get(f"{url}/health", headers={"Host": "a.inside.example"}).status_code == 200
    assert get(f"{url}/health", headers={"Host": "images.example"}).status_code == 200
    assert get(f"{url}/health").status_code == 200
    assert get(f"{url}/health", headers={"Host": "other.example"}).status_code == 421


@pytest.mark.parametrize("name", ["", "*", "images.*"])
def test_what_is_no_name_of_a_host_may_not_be_allowed(require_extra, name):
    require_extra("fastapi")
    from dedup.find.serve import ServiceOptions

    with pytest.raises(InputError, match="expected a name such as images.example"):
        ServiceOptions(allowed_hosts=(name,))


def test_a_slow_upload_loses_its_place(start):
    url = start(FakeLookup(), timeout_s=0.3)

    def slow():
        for _ in range(20):
            yield b"x"
            time.sleep(0.2)

    with suppress(httpx.TransportError):  # it is told no while it goes on sending
        assert post(f"{url}/search", content=slow()).status_code == 408
    wait_for(lambda: "dedup_waiting 0.0" in metrics(url))
    text = metrics(url)
    assert 'dedup_requests_total{path="/search",status="408"} 1.0' in text


def test_previews(start):
    url = start(FakeLookup())
    assert get(f"{url}/preview/7").status_code == 404  # no answer has named it yet
    post(f"{url}/search", content=encode(detailed(0)))
    response = get(f"{url}/preview/7?side=64")
    assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
    for path in ("8", "-1", "../../etc/passwd", "7.jpg", "9" * 30):
        response = get(f"{url}/preview/{path}")
        assert response.status_code == 404
        assert "secret" not in response.text
    assert get(f"{url}/preview/7?side=5000").status_code == 422


def test_health_and_metrics(start):
    url = start(FakeLookup(), version="1.2.3")
    assert get(f"{url}/health").json() == {"status": "ok", "run": "run", "n_images": 12_345, "version": "1.2.3"}
    post(f"{url}/search", content=encode(detailed(0)))
    post(f"{url}/search", content=b"x")
    lines = get(f"{url}/metrics").text.splitlines()
    assert 'dedup_requests_total{path="/search",status="200"} 1.0' in lines
    assert 'dedup_requests_total{path="/search",status="422"} 1.0' in lines
    assert "dedup_copies_total 1.0" in lines
    assert "dedup_matches_total 2.0" in lines
    assert "dedup_search_seconds_count 1.0" in lines
    assert "# TYPE dedup_search_seconds histogram" in lines


def test_more_than_may_wait_are_turned_away_and_the_others_answered(start):
    lookup = FakeLookup()
    url = start(lookup, n_threads=1, max_waiting=2)
    lookup.wait.clear()
    image = encode(detailed(0))
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(post, f"{url}/search", content=image) for _ in range(3)]
        wait_for(lambda: "dedup_waiting 3.0" in metrics(url))
        response = post(f"{url}/search", content=image)
        assert (response.status_code, response.json()["reason"], response.headers["retry-after"]) == (503, "busy", "1")
        lookup.wait.set()
        assert [one.result().status_code for one in waiting] == [200, 200, 200]


@pytest.fixture(scope="module")
def real(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    samples = [Sample(f"d{seed:03d}", encode(detailed(seed)), f"{HOSTILE} {seed}") for seed in range(12)]
    shards = write_shards(folder / "shards", samples)
    dedup.run(dedup.load_config(None, [f"input.shards={shards}", f"output.run_dir={folder}/run", "engine.workers=1"]))
    return start(dedup.open_index(f"{folder}/run"))


def test_eight_clients_at_a_time_over_a_real_run(real):
    def ask(number):
        seed = number % 12
        body = encode(detailed(seed), quality=60) if number % 5 else b"broken"
        response = post(f"{real}/search?k=3", content=body)
        if not number % 5:
            return response.status_code == 422
        best = response.json()["matches"][0]
        preview = get(f"{real}/preview/{best['sample_id']}")
        return response.status_code == 200 and best["key"] == f"d{seed:03d}" and best["is_copy"] is True and preview.status_code == 200

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(64)))


def test_the_page_shows_matches_and_runs_nothing_of_theirs(real, fake, require_extra, require_browser, tmp_path):
    playwright = require_extra("playwright.sync_api")
    (tmp_path / "asked.jpg").write_bytes(encode(detailed(4), quality=50))
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=require_browser, args=["--no-sandbox"])
        for url, n_cards in ((real, 1), (fake[0], 2)):
            page = browser.new_page(viewport={"width": 1100, "height": 800})
            requested, troubles = [], []
            page.on("request", lambda request, seen=requested: seen.append(request.url))
            page.on("console", lambda message, seen=troubles: seen.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error, seen=troubles: seen.append(str(error)))
            page.goto(url)
            page.set_input_files("#file", str(tmp_path / "asked.jpg"))
            page.wait_for_selector(".card.copy")
            wait_for(lambda page=page: page.evaluate("document.querySelector('.card img').naturalWidth"))
            assert page.locator(".card").count() >= n_cards
            assert HOSTILE.strip()[:40] in page.locator(".caption").first.inner_text()
            assert page.title() == "Is this image in the training data?"
            assert page.locator(".caption img, .caption script").count() == 0
            assert "copy of" in page.locator("#status").inner_text()
            assert page.evaluate("document.querySelector('#picture').naturalWidth") == 160
            page.screenshot(path=str(tmp_path / f"page-{n_cards}.png"))
            page.set_input_files("#file", str(tmp_path / "broken.jpg"))
            page.wait_for_selector("#status.error")
            assert page.locator(".card").count() == 0
            assert all(request.startswith((url, "blob:")) for request in requested), requested
            # the preview that is not there, and the image that is none, are answered with 4xx, which browsers report
            assert all("Failed to load resource" in trouble for trouble in troubles), troubles
            page.close()
        page = browser.new_page(color_scheme="dark")
        page.goto(fake[0])
        assert page.evaluate("document.querySelectorAll('a[href^=\"javascript\"]').length") == 0
        page.evaluate("document.querySelector('#file').addEventListener('click', (e) => { e.preventDefault(); window.chosen = true; })")
        page.focus("#drop")
        page.keyboard.press("Enter")
        assert page.evaluate("window.chosen") is True
        browser.close()


def answer(url, image):
    """What a service that may not listen yet says of an image; None while it doesn't."""
    with suppress(httpx.ConnectError):
        return post(url, content=image)


def test_the_command_serves(tmp_path):
    write_tar(tmp_path / "a.tar", [Sample("one", encode(detailed(1))), Sample("two", encode(detailed(2)))])
    dedup.run(dedup.load_config(None, [f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run", "engine.workers=1"]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dedup", "serve", str(tmp_path / "run"), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert f"2 distinct images of {tmp_path}/run: http://127.0.0.1:{port}/" in server.stderr.readline()
        response = wait_for(lambda: answer(f"http://127.0.0.1:{port}/search", encode(detailed(1))), "the service answers", pause_s=0.1)
        assert response.json()["matches"][0]["key"] == "one"
        server.send_signal(signal.SIGINT)
        said = server.stderr.read()
    assert (server.returncode, "Traceback" in said) == (0, False)
    refused = subprocess.run([*command[:4], str(tmp_path / "nowhere")], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "holds no run" in refused.stderr
