"""A real browser for tests of the page: Chromium without a window, driven through WebDriver."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

#: What Debian and others call it.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server")


class Browser:
    """One window; everything that its pages ask for and say is kept."""

    def __init__(self, chromium: str, driver: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for option in _OPTIONS:
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def look(self, width: int = 1280, height: int = 900, scheme: str = "light", media: str = "") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def open(self, url: str) -> None:
        self.driver.get("about:blank")
        self.forget()
        self.driver.get(url)

    def forget(self) -> None:
        """Drop what was said and asked for so far."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")

    @property
    def complaints(self) -> list[str]:
        """What the console says since the last look."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def asked_for(self) -> list[str]:
        """The addresses of all requests since the last look."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        """Return an element's text, whether it is in view or not."""
        return str(self.find(css).get_property("textContent"))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def click(self, css: str) -> None:
        """Click where the element is, whatever part of it is on top there."""
        webdriver.ActionChains(self.driver).move_to_element(self.find(css)).click().perform()

    def type(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def press_with_control(self, key: str) -> None:
        webdriver.ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(key).key_up(Keys.CONTROL).perform()

    @property
    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element


def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return what the condition gives once it is true; while a page gives way to the next one, it isn't."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(NoSuchElementException, StaleElementReferenceException):
            if found := condition():
                return found
        assert time.monotonic() < deadline, "It did not come about in time."
        time.sleep(0.03)


def browsers() -> Iterator[Browser]:
    """Yield a browser for the whole session; skip where there is none."""
    chromium = next((path for name in _NAMES if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("There is no Chromium with its driver (Debian: apt-get install chromium chromium-driver).")
    browser = Browser(chromium, driver)
    try:
        yield browser
    finally:
        browser.driver.quit()


#: Elements that stick out of the window; what is in a box that scrolls may.
OUTSIDE = """
return [...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll, .unseen, svg, select'))
  .filter((one) => one.getBoundingClientRect().right > arguments[0] + 0.5).map((one) => one.outerHTML.slice(0, 120));
"""

#: Pairs of neighbours whose boxes share room: cards, parts of a row, lines of text, labels of the map.
OVERLAPPING = """
const groups = [...document.querySelectorAll(arguments[0])].map((one) => [...one.children]);
groups.push([...document.querySelectorAll('.mark .label')]);
for (const plot of document.querySelectorAll('.plot')) groups.push([...plot.querySelectorAll('.name')]);
const found = [];
for (const group of groups) {
  const boxes = group.filter((one) => one.checkVisibility() && !one.matches('.unseen, title, noscript'))
    .map((one) => [one, one.getBoundingClientRect()]).filter(([, box]) => box.width && box.height);
  boxes.forEach(([one, a], place) => {
    for (const [other, b] of boxes.slice(place + 1)) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 1) found.push([one.outerHTML.slice(0, 120), other.outerHTML.slice(0, 120), wide, high]);
    }
  });
}
return found;
"""

#: The contrast ratio of WCAG 2 between an element's colour and the first ground behind it.
CONTRAST = """
const one = document.querySelector(arguments[0]);
const unit = (colour) => (colour.startsWith('color(') ? 255 : 1);  // a mixed colour counts to 1
const parts = (colour) => colour.match(/[\\d.]+/g).map((value, place) => value * (place < 3 ? unit(colour) : 1));
const light = (colour) => parts(colour).slice(0, 3).map((value) => value / 255)
  .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
let ground = one;
while (ground && (parts(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
const pair = [light(getComputedStyle(one).color), light(getComputedStyle(ground).backgroundColor)];
const [a, b] = pair.sort((x, y) => y - x);
return (a + 0.05) / (b + 0.05);
"""
