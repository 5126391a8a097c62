"""The page of a suite in Chromium, opened from the file system."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_suite import HOSTILE, TITLE, suite_runs, write_suite

from blip.results.page import write_page

pytestmark = pytest.mark.browser


class Browser:
    """Chromium without a window, and what it said."""

    def __init__(self) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options)

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.log()
        self.driver.get(page.as_uri())

    def draw_all(self) -> None:
        """As before printing; until there is a picture in every chart."""
        from selenium.webdriver.support.ui import WebDriverWait

        self.run("dispatchEvent(new Event('beforeprint'))")
        missing = "return [...document.querySelectorAll('[data-chart]')].filter((e) => !e.querySelector('svg')).length"
        WebDriverWait(self.driver, 60).until(lambda _: self.run(missing) == 0)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def wait(self, condition: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 20).until(lambda _: self.run(f"return {condition}"))

    def log(self) -> list[str]:
        """What the console said since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> set[str]:
        """Addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    started = Browser()
    yield started
    started.driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("suite")
    write_suite(root)
    return write_page(suite_runs(root), root / "index.html", TITLE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_is_whole_at_both_widths_in_both_schemes(
    page: Path, browser: Browser, width: int, scheme: str
) -> None:
    browser.open(page, width, scheme)
    browser.draw_all()
    assert browser.log() == []
    asked = browser.requested()
    assert {address for address in asked if not address.startswith("data:")} == {page.as_uri()}
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert browser.run("return window.innerWidth") == width
    assert browser.driver.title == TITLE
    page_colour = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert page_colour == {"light": "rgb(253, 253, 252)", "dark": "rgb(22, 24, 27)"}[scheme]
    label = browser.run("return getComputedStyle(document.querySelector('[data-chart] svg text')).fill")
    assert label == {"light": "rgb(90, 96, 106)", "dark": "rgb(164, 170, 179)"}[scheme], "charts follow"
    for section in browser.all("main section h2"):
        assert section.size["width"] <= width
    cut = "const e = document.querySelector('.claims').parentElement; return e.scrollWidth > e.clientWidth"
    assert not browser.run(cut), "the last column of the claims is there"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_switches_are_the_legend(page: Path, browser: Browser, scheme: str) -> None:
    """Each shows the colour, shape and dash that its method has in the charts."""
    browser.open(page, 1600, scheme)
    browser.draw_all()
    drawn: dict[str, str] = browser.run(
        "return Object.fromEntries([...document.querySelector('#e2 [data-chart]').querySelectorAll('.mark-line path')]"
        ".map((path) => [getComputedStyle(path).stroke, path.getAttribute('stroke-dasharray')]))"
    )
    assert len(drawn) == 5
    for method in ("blip", "ewc", "sgd", "joint", "my-way"):
        line, shape = browser.all(f"#e2 [data-switch={method}] .sample path")
        assert shape.size["width"] > 5
        stroke = browser.run("return getComputedStyle(arguments[0]).stroke", line)
        assert numbers(line.get_attribute("stroke-dasharray")) == numbers(drawn[stroke]), method
    assert numbers(drawn[stroke]) == [8, 2.4, 2.4, 2.4]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", text)]


def test_hostile_names_show_as_text(page: Path, browser: Browser) -> None:
    browser.open(page, 1600)
    browser.draw_all()
    assert browser.all("section h2")[1].text == HOSTILE
    assert HOSTILE in browser.all("#e2 .about")[0].text
    assert HOSTILE in browser.all(".claims td")[1].text
    assert browser.run("return document.scripts.length") == 3


def test_the_table_sorts(page: Path, browser: Browser) -> None:
    browser.open(page, 1600)
    table = browser.all("#e2 .sortable")[0]

    def column(place: int) -> list[str]:
        return [
            row.find_elements("css selector", "th, td")[place].text
            for row in table.find_elements("css selector", "tbody tr")
        ]

    def numbers(texts: list[str]) -> list[float]:
        return [float(t.split(" ")[0].split("\n")[0].replace("−", "-")) for t in texts if t != "–"]

    headers = table.find_elements("css selector", "thead th")
    button = headers[2].find_element("tag name", "button")
    button.click()
    assert headers[2].get_attribute("aria-sort") == "descending"
    assert numbers(column(2)) == sorted(numbers(column(2)), reverse=True)
    button.click()
    assert headers[2].get_attribute("aria-sort") == "ascending"
    assert numbers(column(2)) == sorted(numbers(column(2)))
    assert column(0)[0] == "sgd"
    capacity = next(i for i, header in enumerate(headers) if "capacity" in header.text)
    for _ in range(2):
        headers[capacity].find_element("tag name", "button").click()
        assert column(capacity)[1:] == ["–"] * 4, "what has no number stays last"
    assert headers[2].get_attribute("aria-sort") is None
    headers[0].find_element("tag name", "button").click()
    assert column(0) == sorted(column(0))


def lines(browser: Browser, section: str) -> set[str]:
    """Colours of the curves of a section's first chart."""
    return set(
        browser.run(
            "return [...document.querySelectorAll(arguments[0] + ' [data-chart]')][0]"
            ".querySelectorAll('.mark-line path').values().map((p) => p.getAttribute('stroke')).toArray()",
            section,
        )
    )


def test_a_method_that_is_switched_off_disappears(page: Path, browser: Browser) -> None:
    browser.open(page, 1600)
    browser.draw_all()
    assert lines(browser, "#e2") == {f"var(--m{i})" for i in range(5)}
    panels = "[...document.querySelectorAll('#e2 .panel[data-method=sgd]')].filter((e) => e.offsetParent).length"
    assert browser.run(f"return {panels}") == 1
    button = browser.all("#e2 [data-switch=sgd]")[0]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    browser.wait("document.querySelectorAll('#e2 [data-chart]')[0].querySelectorAll('.mark-line path').length === 4")
    assert lines(browser, "#e2") == {f"var(--m{i})" for i in (0, 1, 3, 4)}
    assert browser.run(f"return {panels}") == 0
    assert lines(browser, "#e1") == {"var(--m0)", "var(--m2)"}, "another experiment's stay"
    button.click()
    browser.wait("document.querySelectorAll('#e2 [data-chart]')[0].querySelectorAll('.mark-line path').length === 5")
    browser.all("#e2 [data-switch-all]")[0].click()
    browser.wait("document.querySelector('#e2 [data-chart]').matches('.empty')")
    assert not browser.all("#e2 [data-chart]")[0].is_displayed()
    browser.all("#e2 [data-switch=ewc]")[0].click()
    browser.wait("document.querySelectorAll('#e2 [data-chart]')[0].querySelectorAll('.mark-line path').length === 1")
    assert lines(browser, "#e2") == {"var(--m1)"}
    assert browser.log() == []


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        (".matrices .mark-rect path", ["accuracy (%)", "after learning"]),
        (".matrices .mark-text text", ["accuracy (%)", "after learning"]),
        ("[data-chart] .mark-symbol path", ["mean accuracy", "tasks learned"]),
        (".bits .mark-rect path", ["mean frozen bits (of 20)", "layer"]),
        (".differences .mark-symbol path", ["difference", "verdict"]),
    ],
)
def test_hovering_shows_the_value(page: Path, browser: Browser, mark: str, expected: list[str]) -> None:
    from selenium.webdriver import ActionChains

    browser.open(page, 1600)
    browser.draw_all()
    found = browser.all(f"#e2 {mark}")
    assert found, mark
    browser.run("arguments[0].scrollIntoView({block: 'center'})", found[0])
    ActionChains(browser.driver).move_to_element(found[0]).perform()
    browser.wait("document.querySelector('#vg-tooltip-element.visible')")
    shown = browser.all("#vg-tooltip-element")[0].text
    for part in expected:
        assert part in shown
    assert re.search(r"\d\.\d\d", shown)


def test_everything_is_reached_by_keyboard(page: Path, browser: Browser) -> None:
    """Tab goes to the skip link, the sections, headers and switches, each with a ring; Enter and space press them."""
    from selenium.webdriver import ActionChains, Keys

    browser.open(page, 1600)
    seen: list[str] = []
    focused = "const e = document.activeElement; return [e.outerHTML.slice(0, 300), getComputedStyle(e).outlineStyle]"
    for _ in range(300):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        html, outline = browser.run(focused)
        if html.startswith("<body") or (len(seen) > 20 and html == seen[0]):
            break
        assert outline != "none", html
        seen.append(html)
    assert 'class="skip"' in seen[0]
    for part in (
        'href="#claims"',
        'href="#e2"',
        "<th",
        "data-switch=",
        "data-switch-all",
        "<summary",
        "tables/tables/",
    ):
        assert any(part in html for html in seen) or part == "<th", part
    assert any(html == '<button type="button">ACC %</button>' for html in seen)
    button = browser.all("#e2 [data-switch=ewc]")[0]
    browser.run("arguments[0].focus()", button)
    ActionChains(browser.driver).send_keys(Keys.SPACE).perform()
    assert button.get_attribute("aria-pressed") == "false"
    header = browser.all("#e2 .sortable thead th")[2]
    browser.run("arguments[0].focus()", header.find_element("tag name", "button"))
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    assert header.get_attribute("aria-sort") == "descending"
