"""The status page of fifty games in a real browser: who is sick stands on top, everybody can use it, red means red."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from lab.browser import axe, browse, said
from lab.fifty_games import MANY_REFUSED, NUMBER, SICK, Games, page_with, watched
from lab.processes import ROOT
from pusher.daemon.admin.page import PAGE
from pusher.daemon.admin.port import AdminPort

#: Runs ``work`` once the page is drawn, and leaves what it returns where ``said`` finds it.
WHEN_DRAWN = """
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const drawn = async () => { while (!document.querySelector(".card")) await sleep(20); };
drawn().then(async () => { %s }).then(found => {
  const said = document.createElement("output");
  said.textContent = JSON.stringify(found);
  document.body.append(said);
});
"""
ROWS = 'Array.from(document.querySelectorAll("tbody tr")).map(row => row.children[0].textContent)'


@pytest.fixture
def games() -> Games:
    return Games()


@pytest.fixture
def admin(games: Games) -> Iterator[AdminPort]:
    with watched(games, docs="https://docs.example.com/pusher") as port:
        yield port


def ask_page(admin: AdminPort, work: str, place: str = "", **look: Any) -> Any:
    """What the work, a script, finds on the page."""
    with page_with(admin, axe(), (WHEN_DRAWN % work).encode()) as address:
        return said(browse(address + place, "--dump-dom", **look))


def test_the_sick_stand_on_top_and_the_busy_follow(admin: AdminPort) -> None:
    rows = ask_page(admin, f"return {ROWS};")
    assert len(rows) == NUMBER
    assert set(rows[:3]) == set(SICK)
    assert rows[3] == MANY_REFUSED


def test_search_and_sort(admin: AdminPort) -> None:
    assert ask_page(
        admin,
        f"""
        const search = document.getElementById("search");
        search.focus(); search.value = "game4"; search.dispatchEvent(new Event("input"));
        const still = document.activeElement.id;
        document.getElementById("sort app").click();
        return [still, {ROWS}, document.querySelector("th[aria-sort]").textContent];
        """,
    ) == ["search", [f"game4{digit}" for digit in range(10)], "app"]


def test_a_game_has_its_page_with_what_to_do(admin: AdminPort) -> None:
    found = ask_page(
        admin,
        'return [document.querySelector("h2").textContent, document.querySelector(".trouble").textContent, '
        'document.querySelector(".trouble a").href, document.querySelectorAll(".plot").length];',
        "#/apns/game07",
    )
    assert found[0] == "game07"
    assert SICK["game07"] in found[1]
    assert "SIGHUP" in found[1]
    assert found[2] == "https://docs.example.com/pusher/operations.html#credentials-are-refused"
    assert found[3] == 2


def test_charts_are_read_with_the_keyboard(admin: AdminPort) -> None:
    before, after = ask_page(
        admin,
        """
        const plot = document.querySelector(".plot"), right = plot.parentNode.querySelector(".ends").lastChild;
        plot.focus();
        const before = right.textContent;
        for (const key of ["ArrowLeft", "ArrowLeft"]) plot.dispatchEvent(new KeyboardEvent("keydown", {key}));
        return [before, right.textContent];
        """,
        "#/apns/game00",
    )
    assert (before, after) == ("now", "5.0 s ago")


def test_an_outage_of_kafka_is_red(admin: AdminPort, games: Games) -> None:
    games.reasons = ["kafka: the brokers cannot be reached"]
    head, trouble = ask_page(
        admin, 'return [document.querySelector("header").innerText, document.querySelector(".trouble").innerText];'
    )
    assert "not ready" in head
    assert "kafka: the brokers cannot be reached" in trouble
    assert "brokers" in trouble.partition("\n")[2]


def test_a_process_that_has_died_is_red(admin: AdminPort) -> None:
    found = ask_page(
        admin,
        """
        window.fetch = () => Promise.reject(new Error("gone"));
        await refresh();
        return [document.querySelector("header .pill").className, document.querySelector("header .pill").textContent,
                document.getElementById("gone").textContent, document.body.className];
        """,
    )
    assert found[:2] == ["pill bad", "does not answer"]
    assert "look at its supervisor" in found[2]
    assert found[3] == "old"


@pytest.mark.parametrize("place", ["", "#/apns/game07"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_keeps_people_from_using_it(admin: AdminPort, place: str, width: int, dark: bool) -> None:
    found = ask_page(
        admin,
        "const found = await axe.run(document);"
        "return found.violations.map(one => [one.id, one.nodes.map(node => node.html)]);",
        place,
        width=width,
        dark=dark,
    )
    assert found == []


def test_advice_leads_to_what_the_documents_have() -> None:
    places = re.findall(r'"([a-z]+)\.html#([a-z-]+)"', PAGE.decode())
    assert len(places) > 5
    for page, anchor in places:
        headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / f"{page}.md").read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") for heading in headings}, page
