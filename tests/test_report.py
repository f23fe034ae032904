"""The page of an audit: complete in itself, true to its card, and a browser shows it."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from embodied import plots
from embodied.card import measure
from embodied.checks import CHECK, Clip
from embodied.report import render
from tests import judges
from tests.judges import episodes, play

RECORD = {
    "model": "eye",
    "env": "point <b>",
    "date": "2025-01-31T10:00:00+00:00",
    "fingerprint": "0123456789abcdef",
    "dataset": {"path": "data/<x>", "fingerprint": "fedcba9876543210"},
}


def page(model=judges.Glare, images=True):
    card = measure(model(), episodes(2, images), threshold=0.95)
    return card, render(card, RECORD, ("front",))


def browser():
    """A Chromium; the tests that need one skip without it."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("CHROME") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("no Chromium or Chrome on PATH or in CHROME: the page cannot be shown")
    return found


def chromium(folder, html, *options):
    file = folder / "report.html"
    file.write_text(html)
    command = [
        browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--hide-scrollbars",
        "--virtual-time-budget=2000", *options, file.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    void = {"meta", "br"}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_needs_nothing_else():
    _, html = page()
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', html)
    assert "url(" not in html and "<script" not in html and "http" not in html
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert "point &lt;b&gt;" in html and "data/&lt;x&gt;" in html and "<x>" not in html


def test_it_says_what_the_card_says():
    card, html = page()
    assert '<header class="verdict failed" id="verdict"><h1>Failed</h1>' in html
    assert "1 of 10 deciding checks fails." in html
    for finding in card.failed:
        assert finding.sentence[1:] in html
    assert card.weakness[1:] in html
    assert html.count('class="pill bad"') == 2 * len(card.failed)  # a figure and a row
    assert html.count('<div class="tile failed"') == 1
    for row in card.sources:
        assert f"<td>{row['source']}</td>" in html
    _, fine = page(judges.Eye)
    assert '<header class="verdict passed" id="verdict"><h1>Passed</h1>' in fine
    assert "All 10 deciding checks pass." in fine and 'class="pill bad"' not in fine


def test_without_images_there_are_curves_alone():
    card, html = page(judges.Clock, images=False)
    assert "data:image" not in html
    assert html.count('class="value" points') == html.count("<figure>") >= len(card.failed)


def test_a_model_of_states_is_shown_with_the_images_of_the_dataset():
    _, html = page(judges.Clock)
    assert "data:image" in html


# --- pictures


def clip(value, status=None, source="expert"):
    episode = play(source, 0, images=True)
    count = len(value)
    episode = episode.at(np.linspace(0, len(episode) - 1, count).astype(int))
    codes = np.zeros(count, np.int8) if status is None else np.asarray(status, np.int8)
    return Clip(episode, np.asarray(value, np.float32), codes)


def test_a_film_strip_shows_eight_moments():
    images = np.repeat(np.arange(16, dtype=np.uint8), 600).reshape(16, 20, 10, 3)
    strip = plots.film_strip(images)
    assert strip.shape == (20, 80, 3)
    assert strip[0, ::10, 0].tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert plots.film_strip(np.zeros((3, 200, 100, 3), np.uint8)).shape == (96, 8 * 48, 3)


def test_a_picture_comes_back_bit_for_bit():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    text = plots.png(image)
    data = base64.b64decode(text.removeprefix("data:image/png;base64,"))
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(back[..., ::-1], image)


def test_bands_say_where_success_is_claimed():
    assert list(plots.runs(np.array([1, 1, 0, 1, 0, 1, 1], bool))) == [(0, 2), (3, 4), (5, 7)]
    assert list(plots.runs(np.zeros(3, bool))) == []
    shown = clip([0.0, 0.97, 0.0, 0.0, 0.99])
    assert shown.episode.success.tolist() == [False, False, False, False, True]
    svg = plots.curve(shown, 0.95, "front")
    assert svg.count('class="wrong"') == 1 and svg.count('class="right"') == 1
    assert svg.count('class="truth"') == 1 and svg.count("<image") == 1
    assert plots.curve(shown, 0.95).count("<image") == 0
    shown.episode.progress[:] = np.nan
    assert 'class="truth"' not in plots.curve(shown, 0.95)
    assert 'class="silent"' in plots.curve(clip([0.0] * 4, [0, 2, 2, 0]), 0.95)


def test_a_gauge_marks_value_and_limit():
    svg = plots.gauge(CHECK["expert_voc"], 0.5)
    assert 'class="bar" x="0.0"' in svg and 'width="50.0"' in svg and 'x="80.0"' in svg
    svg = plots.gauge(CHECK["reversed"], -1.0)  # from -1 to 1
    assert 'class="bar" x="0.0"' in svg and 'width="50.0"' in svg and 'x="25.0"' in svg


# --- a browser


@pytest.mark.parametrize("model", [judges.Glare, judges.Eye])
def test_a_browser_shows_the_verdict_and_has_nothing_to_say(tmp_path, model):
    card, html = page(model)
    done = chromium(tmp_path, html, "--dump-dom")
    assert done.returncode == 0, done.stderr
    word = "Passed" if card.gate == "passed" else "Failed"
    assert f"<h1>{word}</h1>" in done.stdout
    assert done.stdout.count("<image ") == html.count("<image ")
    assert "CONSOLE" not in done.stderr


def test_the_verdict_is_seen_first_and_in_colour(tmp_path):
    _, html = page()
    picture = tmp_path / "page.png"
    chromium(tmp_path, html, f"--screenshot={picture}", "--window-size=1160,800")
    image = cv2.imread(str(picture))
    assert image is not None
    red = (image[..., 2].astype(int) - image[..., 1] > 60) & (image[..., 2] > 120)
    assert red[:250].mean() > 0.005  # the word and the edge of its box
