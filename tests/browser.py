"""A real browser, and the contrast of text measured in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Error as BrowserError

# Contrast ratio of each visible element that matches a selector with its background.
CONTRAST = """(selector) => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const painted = (...colors) => {
    for (const color of colors) {
      context.fillStyle = color;
      context.fillRect(0, 0, 1, 1);
    }
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((each) => {
      const part = each / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility()).map(
    (each) => {
      const behind = [];
      for (let at = each; at; at = at.parentElement) {
        behind.unshift(getComputedStyle(at).backgroundColor);
      }
      const ground = painted(...behind);
      const ink = painted(getComputedStyle(each)[each.closest("svg") ? "fill" : "color"]);
      return (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
    }
  );
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start headless Chromium; skip the test without it, unless ATLAS_NEEDS_BROWSER is set."""
    with sync_playwright() as playwright:
        options = {
            "executable_path": shutil.which("chromium"),
            "args": ["--no-sandbox", "--disable-dev-shm-usage"],
        }
        try:
            found = playwright.chromium.launch(**options)
        except BrowserError as error:
            if os.environ.get("ATLAS_NEEDS_BROWSER"):
                raise
            pytest.skip(f"no browser can be started: {error.message.splitlines()[0]}")
        try:
            yield found
        finally:
            found.close()
