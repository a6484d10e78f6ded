"""`evergreen review` in a real browser, by the keyboard, and what no other page or person may do with it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.data.inbox import Inbox, inbox_of
from evergreen.errors import WrongUse
from evergreen.kinds.base.labelling import part_of
from evergreen.review.decisions import Decisions
from evergreen.review.session import Review
from flows.overview import status
from flows.review import HEADERS, application, item_of, key_of, keys_of, serving
from tests.flows.conftest import free_port
from tests.flows.test_pages import CHROMIUM, QUIET
from tests.support.readings.kind import READINGS
from tests.support.shipped import ROOT
from tests.tiny import NAME, Tiny

pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")

TOKEN, TICKET, ADDRESS = "t" * 43, "i" * 43, "http://127.0.0.1:4202"


@pytest.fixture
def tiny(champion: Tiny) -> Iterator[Tiny]:
    """The same, with nothing decided yet."""
    yield champion
    for folder in (champion.workspace.review(NAME), inbox_of(champion.scenario, champion.workspace)):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(tiny: Tiny) -> Any:
    """As the browser of the person who opened the printed address."""
    from starlette.testclient import TestClient

    review = Review(tiny.workspace, tiny.scenario, Decisions(tiny.workspace, tiny.scenario, "anna"))
    client = TestClient(application(review, TOKEN, {TICKET}, first_queue="mistakes", port=4202), base_url=ADDRESS)
    assert client.get("/", params={"ticket": TICKET}).status_code == 200
    return client


def prepared(client: Any, queue: str) -> Any:
    """The state of a queue when it is ready."""
    import time

    until = time.monotonic() + 120
    while (state := client.get(f"/queue/{queue}").json())["state"] == "preparing" and time.monotonic() < until:
        time.sleep(0.05)
    return state


def upcoming(client: Any, queue: str, count: int = 3) -> Any:
    answer = client.post(f"/queue/{queue}/upcoming", json={"count": count}, headers={"X-Evergreen-Token": TOKEN})
    return answer.json()["items"]


def test_nobody_without_the_token_sees_anything(client: Any) -> None:
    client.cookies.clear()
    for address in ("/", "/review.js", "/picture?item=x", "/queue/mistakes", "/?ticket=wrong", f"/?token={TOKEN}"):
        answer = client.get(address)
        assert answer.status_code == 403 and TOKEN not in answer.text, address


def test_the_address_opens_the_page_in_one_browser_in_which_it_goes_on_working(client: Any) -> None:
    assert client.get("/", params={"ticket": TICKET}).status_code == 200  # it was used before, by this browser
    client.cookies.clear()
    answer = client.get("/", params={"ticket": TICKET})
    assert answer.status_code == 403 and "start it again" in answer.text and TOKEN not in answer.text


def test_what_opens_the_page_is_in_no_file_and_not_the_same_every_time(tiny: Tiny) -> None:
    options: dict[str, Any] = {"by": "anna", "queue": "inbox", "port": 0}
    with serving(tiny.workspace, tiny.scenario, **options) as address:
        one, other = address(), address()
    cookie = tiny.workspace.review(NAME) / "cookie"
    assert one != other and cookie.read_text() not in one and cookie.stat().st_mode & 0o777 == 0o600


def test_a_file_whose_name_is_not_utf_8_gets_a_label(client: Any, tiny: Tiny) -> None:
    inbox = inbox_of(tiny.scenario, tiny.workspace)
    (inbox / "unlabelled").mkdir(parents=True)
    (inbox / os.fsdecode(b"unlabelled/caf\xe9.png")).write_bytes(tiny.images[0])
    prepared(client, "inbox")
    [shown] = upcoming(client, "inbox")
    assert shown["source"] == "unlabelled/caf\\xe9.png" and shown["item"].isascii()
    assert client.get("/picture", params={"item": shown["item"]}).status_code == 200
    body = {"action": "label", "item": shown["item"], "label": "3"}
    answer = client.post("/queue/inbox/decide", json=body, headers={"X-Evergreen-Token": TOKEN})
    assert answer.status_code == 200 and (inbox / os.fsdecode(b"3/caf\xe9.png")).exists()
    again = client.post("/queue/inbox/decide", json=body, headers={"X-Evergreen-Token": TOKEN})
    assert again.status_code == 409 and again.json()["gone"]


@given(raw=st.binary(), identity=st.lists(st.integers()).map(tuple))
def test_the_page_names_every_item_in_ascii(raw: bytes, identity: tuple[int, ...]) -> None:
    key = key_of(os.fsdecode(raw), identity)
    assert key.isascii() and item_of(key) == (os.fsdecode(raw), identity)


def test_no_other_page_can_send_a_decision(client: Any, tiny: Tiny) -> None:
    body = {"action": "skip", "item": "x"}
    for headers in (
        {},
        {"X-Evergreen-Token": "wrong"},
        {"X-Evergreen-Token": TOKEN, "Origin": "http://evil.example"},
        {"X-Evergreen-Token": TOKEN, "Origin": "http://127.0.0.1:9999"},
        {"X-Evergreen-Token": TOKEN, "Origin": "null"},
    ):
        assert client.post("/queue/mistakes/decide", json=body, headers=headers).status_code == 403, headers
    named = client.get("/", headers={"Host": "evil.example"})
    assert named.status_code == 400
    assert not (tiny.workspace.review(NAME) / "decisions.jsonl").exists()


def test_every_answer_forbids_other_origins_and_is_kept_by_no_browser(client: Any) -> None:
    for address in ("/", "/review.js", "/queue/zebra", "/picture?item=x", "/nowhere"):
        answer = client.get(address)
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, address
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    "item",
    ["../../scenarios/quickstart.yaml", "unlabelled/../../../scenarios/quickstart.yaml", "unlabelled/link", "f" * 64, ""],
)
def test_only_items_are_served(client: Any, tiny: Tiny, item: str) -> None:
    folder = inbox_of(tiny.scenario, tiny.workspace) / "unlabelled"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tiny.workspace.scenarios / "quickstart.yaml")
    for key in (key_of(item, ()), item):
        answer = client.get("/picture", params={"item": key})
        assert answer.status_code == 409 and "no such" in answer.json()["error"]


def test_a_wrong_request_is_answered_with_a_sentence_and_changes_nothing(client: Any, tiny: Tiny) -> None:
    prepared(client, "unsure")
    item = upcoming(client, "unsure")[0]["item"]
    for body, reason in (
        ({"action": "label", "item": item, "label": "zebra"}, "there is no such label"),
        ({"action": "label", "item": key_of("f" * 64, ()), "label": "3"}, "there is no such item"),
        ({"action": "dance"}, "there is no such action"),
        ({"action": "undo"}, "nothing to undo"),
        ([], "no JSON object"),
    ):
        answer = client.post("/queue/unsure/decide", json=body, headers={"X-Evergreen-Token": TOKEN})
        assert answer.status_code == 409 and reason in answer.json()["error"]
    assert "there is no such queue" in client.get("/queue/zebra").json()["error"]
    assert not inbox_of(tiny.scenario, tiny.workspace).exists()


def test_the_mistakes_are_those_of_the_champion_on_val_and_test_with_the_surest_first(client: Any, tiny: Tiny) -> None:
    state = prepared(client, "mistakes")
    found = upcoming(client, "mistakes", 50)
    assert state["left"] == len(found) > 0
    sure = [one["suggestion"]["probabilities"][0][1] for one in found]
    assert sure == sorted(sure, reverse=True)
    assert all(one["suggestion"]["label"] != one["label"] for one in found)
    wrong = {row["source"] for row in csv.DictReader((tiny.workspace.evaluation(NAME) / "mistakes.csv").open())}
    assert wrong <= {one["source"] for one in found}
    assert all(one["item"] not in dict(one["similar"]) for one in found)


def test_without_a_champion_new_items_can_still_be_labelled(registered: Tiny) -> None:
    folder = inbox_of(registered.scenario, registered.workspace) / "unlabelled"
    folder.mkdir(parents=True)
    (folder / "new.png").write_bytes(registered.images[0])
    review = Review(registered.workspace, registered.scenario, Decisions(registered.workspace, registered.scenario, "anna"))
    with pytest.raises(WrongUse, match="no version champion.*evergreen promote"):
        review.prepare("unsure")
    review.prepare("inbox")
    [shown] = review.upcoming("inbox", 5)
    assert (shown.item, shown.label, shown.suggestion, shown.similar) == ("unlabelled/new.png", None, None, ())
    review.label("inbox", shown.item, "3")
    assert (folder.parent / "3/new.png").exists() and review.left("inbox") == 0


def test_files_without_a_label_wait_in_the_inbox_and_status_counts_them(tiny: Tiny) -> None:
    inbox = inbox_of(tiny.scenario, tiny.workspace)
    (inbox / "unlabelled/monday").mkdir(parents=True)
    for name in ("a.png", "monday/b.png", ".hidden.png", "c.png.part", "Thumbs.db"):
        (inbox / "unlabelled" / name).write_bytes(name.encode())
    found = Inbox.look_into(inbox, 0.0)
    assert len(found.unlabelled) == 2 and len(found) == 0 and not found.left and list(found.stream()) == []
    assert status(tiny.workspace, [NAME]).scenarios[0].inbox == "2 files without a label"


def test_labels_that_are_digits_have_their_own_keys() -> None:
    assert keys_of(["3", "0", "7"]) == ["3", "0", "7"]
    many = keys_of([f"label {number}" for number in range(40)])
    assert many[:10] == [*"123456789", "a"] and many[-1] == "" and not set("hsu") & set(many)


def test_a_kind_without_this_part_is_refused_with_a_sentence() -> None:
    with pytest.raises(WrongUse, match="items of the kind readings cannot be shown"):
        part_of(READINGS)


def test_the_command_ends_by_ctrl_c_and_is_alone_with_its_scenario(tiny: Tiny) -> None:
    command = [sys.executable, "-m", "flows.cli", "review", NAME, "--no-open", "--port", str(free_port())]
    environment = os.environ | {"EVERGREEN_ROOT": str(tiny.root), "PYTHONPATH": str(ROOT)}
    process = psutil.Popen(command, cwd="/", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = process.stdout.readline().split()[-1]
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert f"Review of {NAME}".encode() in answer.read()
    second = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2 and "review-quickstart" in second.stderr
    family = process.children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0 and "The same command goes on where you stopped." in said
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("no Chromium: install Debian's package chromium to see the pages tested")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def opened(browser: Any, address: str, problems: list[str]) -> Any:
    """The page, on a narrow screen; what it asks of other hosts and complains about is noted."""
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.set_default_timeout(60_000)
    page.on(
        "console", lambda message: problems.append(f"{message.text} {message.location}") if message.type == "error" else None
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if "//127.0.0.1:" not in request.url else None)
    page.goto(address)
    return page


def shows(page: Any, selector: str, text: str) -> None:
    page.locator(selector, has_text=text).first.wait_for(state="visible")


def press(page: Any, key: str, says: str) -> None:
    page.keyboard.press(key)
    shows(page, "#message", says)


@pytest.mark.browser
@pytest.mark.slow
def test_a_person_labels_by_the_keyboard_on_a_narrow_screen_and_goes_on_after_a_restart(browser: Any, tiny: Tiny) -> None:
    inbox, problems = inbox_of(tiny.scenario, tiny.workspace), list[str]()
    (inbox / "unlabelled").mkdir(parents=True)
    for number, image in enumerate(tiny.images[:3]):
        (inbox / "unlabelled" / f"new <b>{number}.png").write_bytes(image)
    options: dict[str, Any] = {"by": "anna", "port": 0}
    with serving(tiny.workspace, tiny.scenario, queue="unsure", **options) as address:
        page = opened(browser, address(), problems)
        shows(page, "#facts-label", "Label: ")
        assert "ticket" not in page.url
        press(page, "h", "Heat maps are shown.")
        page.locator("#picture img.heat").wait_for(state="visible")
        shows(page, "#heat-state", "Heat map for ")
        label = page.inner_text("#facts-label").split(";")[0].removeprefix("Label: ")
        wrong = str((int(label) + 1) % 10)
        press(page, wrong, f"Changed: {wrong} instead of {label}.")
        shows(page, "#progress", "1 decided")
        press(page, "Enter", "Kept: ")
        press(page, "s", "Skipped.")
        press(page, "u", "Undone")
        shows(page, "#progress", "2 decided")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        if os.environ.get("EVERGREEN_PICTURES"):
            page.screenshot(path=str(Path(os.environ["EVERGREEN_PICTURES"]) / "review.png"), full_page=True)

        # The other queue, by Tab and Enter alone.
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.queue ?? ''") == "inbox":
                break
        page.keyboard.press("Enter")
        shows(page, "#facts-label", "No label yet; suggested: ")
        shows(page, "#source", "<b>")  # names are text
        press(page, "7", "Labelled: 7.")
        shows(page, "#progress", "1 new item in the inbox")
        page.close()
    [file] = inbox.glob("review-*.csv")
    [row] = csv.DictReader(file.open())
    assert (row["label"], row["by"]) == (wrong, "anna") and len(list((inbox / "7").iterdir())) == 1

    with serving(tiny.workspace, tiny.scenario, queue="inbox", **options) as address:
        page = opened(browser, address(), problems)
        shows(page, "#progress", "3 decided, 2 left")
        press(page, "u", "Undone")
        shows(page, "#progress", "2 decided, 3 left")
        for decided in (3, 4, 5):
            press(page, "3", "Labelled: 3.")
            shows(page, "#progress", f"{decided} decided, {5 - decided} left")
        shows(page, "#finished-title", "Done: this queue is empty.")
        shows(page, "#next-step", "evergreen retrain quickstart")
        page.close()
    assert len(list((inbox / "3").iterdir())) == 3 and not list((inbox / "7").iterdir())
    log = (tiny.workspace.review(NAME) / "decisions.jsonl").read_text().splitlines()
    assert {json.loads(line)["by"] for line in log} == {"anna"}
    assert problems == []


@pytest.mark.browser
@pytest.mark.slow
def test_lost_answers_and_refusals_change_nothing_that_the_person_did_not_decide(browser: Any, tiny: Tiny) -> None:
    folder = inbox_of(tiny.scenario, tiny.workspace) / "unlabelled"
    folder.mkdir(parents=True)
    for number, image in enumerate([*tiny.images[:4], b"no image"]):
        (folder / f"{number}.png").write_bytes(image)
    with serving(tiny.workspace, tiny.scenario, by="anna", queue="inbox", port=0) as address:
        page = opened(browser, address(), [])
        for decided in (1, 2):
            shows(page, "#facts-label", "No label yet; suggested: ")
            press(page, "3", "Labelled: 3.")
            shows(page, "#progress", f"{decided} decided, {5 - decided} left")

        def lose_the_answer(route: Any) -> None:
            route.fetch()
            route.abort()

        page.route("**/decide", lose_the_answer, times=1)
        press(page, "u", "Undone")  # sent twice, done once
        shows(page, "#progress", "1 decided, 4 left")

        gone = page.inner_text("#source")
        (folder.parent / gone).unlink()
        press(page, "5", "Labelled: 5.")
        shows(page, "#problem", "there is no such item")
        assert page.inner_text("#source") != gone

        held: list[Any] = []
        page.route("**/decide", lambda route: held.append(route), times=1)
        press(page, "6", "Labelled: 6.")
        page.click("button[data-queue=mistakes]")
        shows(page, "#facts-label", "Label: ")
        shown = page.inner_text("#source")
        held[0].fulfill(status=409, json={"error": "a late refusal"})
        shows(page, "#problem", "a late refusal")
        assert page.inner_text("#source") == shown

        page.click("button[data-queue=inbox]")
        for decided in (2, 3):
            shows(page, "#facts-label", "No label yet; suggested: ")
            press(page, "7", "Labelled: 7.")
            shows(page, "#progress", f"{decided} decided, {4 - decided} left")
        shows(page, "#picture", "This item can't be used: ")
        press(page, "s", "Skipped.")
        shows(page, "#progress", "3 decided, 0 left")
        page.close()
