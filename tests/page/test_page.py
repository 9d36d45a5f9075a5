"""The page in a real browser: what people see, do and hear on it. Chromium's own, headless.

With `MAKE_SCREENSHOTS=1`, the pictures of README.md and docs/page.md are made anew.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iei.models.spec import Geometry
from tests.page.browsing import MARKS, Browser, Locator, Page, expect, visit
from tests.pictures import data_uri, encode, photo
from tests.servers import ROOT, Server

pytestmark = MARKS

SIZES = {
    "chelsea": (500, 375),
    "coffee": (600, 400),
    "rocket": (640, 427),
    "flower": (640, 427),
    "astronaut": (512, 512),
}
IN_SCREENSHOTS = ("chelsea", "coffee", "rocket", "astronaut")
"""In the public domain: pictures of them are in the documentation."""
SCREENSHOTS = ROOT / "docs" / "images"
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Photos, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    found = {name: folder / f"{name}.jpg" for name in SIZES}
    for name, path in found.items():
        path.write_bytes(encode(photo(*SIZES[name], name), "JPEG", quality=90))
    found["broken"] = folder / "broken.jpg"
    found["broken"].write_bytes(found["coffee"].read_bytes()[:2000])
    return found


def show(page: Page, files: dict[str, Path], *names: str) -> None:
    """Chooses these pictures, and waits for their vectors."""
    page.set_input_files("#files", [files[name] for name in names])
    expect(page.locator("#status")).to_have_text(f"{len(names)} vectors" if len(names) > 1 else "1 vector")


def post_files(server: Server, route: str, *paths: Path) -> NDArray[np.float32]:
    sent = [("image", (path.name, path.read_bytes())) for path in paths]
    response = httpx.post(server.url + route, files=sent, headers={"accept": "application/x-npy"}, timeout=60)
    array: NDArray[np.float32] = np.load(io.BytesIO(response.raise_for_status().content))
    return array


def cosines(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    unit, other_unit = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (vectors, others))
    product: NDArray[np.float32] = unit @ other_unit.T
    return product


def told_cosines(page: Page) -> dict[frozenset[str], float]:
    """Pair of names → the cosine that a screen reader hears. One name: of an input with itself."""
    found = {}
    for cell in page.locator("#matrix td.pair").all():
        match = re.fullmatch(r"(.*) and (.*): cosine (-?\d\.\d{4})", cell.get_attribute("aria-label") or "")
        if match:
            found[frozenset(match.groups()[:2])] = float(match[3])
    return found


def overlay(page: Page) -> NDArray[np.uint8]:
    """The colours over the picture: uint8[rows, columns, 3]."""
    width, height, values = page.evaluate(
        """() => {
            const { width, height } = document.getElementById("overlay");
            const context = new OffscreenCanvas(width, height).getContext("2d");
            context.drawImage(document.getElementById("overlay"), 0, 0);
            return [width, height, [...context.getImageData(0, 0, width, height).data]];
        }"""
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def click_patch(page: Page, row: int, column: int) -> None:
    box = page.locator("#overlay").bounding_box()
    assert box
    rows, columns, _ = overlay(page).shape
    position = {"x": (column + 0.5) * box["width"] / columns, "y": (row + 0.5) * box["height"] / rows}
    page.locator("#overlay").click(position=position)


def test_pictures_become_thumbnails_and_cosines(browser: Browser, demo_server: Server, files: dict[str, Path]) -> None:
    with visit(browser, demo_server) as page:
        expect(page.locator("#demo")).to_be_visible()
        show(page, files, "chelsea", "coffee", "rocket")
        for thumbnail in page.locator("#tray img").all():
            assert thumbnail.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        paths = [files[name] for name in ("chelsea", "coffee", "rocket")]
        vectors = post_files(demo_server, "/embed", *paths)
        expected = {
            frozenset((one.name, other.name)): float(value)
            for one, row in zip(paths, cosines(vectors, vectors), strict=True)
            for other, value in zip(paths, row, strict=True)
        }
        assert told_cosines(page) == pytest.approx(expected, abs=2e-4)
        ranked = sorted(expected, key=expected.__getitem__, reverse=True)
        nearest = next(pair for pair in ranked if len(pair) == 2 and "chelsea.jpg" in pair)
        expect(page.locator("#neighbours .name").first).to_have_text(next(iter(nearest - {"chelsea.jpg"})))
        expect(page.locator("#numbers")).to_contain_text(f"192 values from {vectors[0].min():.3f}")
        expect(page.locator("#stages dt")).to_have_count(6)
        page.locator("#neighbours button").first.click()
        expect(page.locator("#chosen-title")).not_to_have_text("chelsea.jpg")
        page.click("#clear")
        expect(page.locator("#results > section:visible")).to_have_count(0)


def test_another_pooling_gives_other_vectors(browser: Browser, demo_server: Server, files: dict[str, Path]) -> None:
    with visit(browser, demo_server) as page:
        show(page, files, "chelsea", "coffee")
        before = told_cosines(page)
        page.select_option("#pooling", "cls")
        expect(page.locator("#snippet")).to_contain_text("pooling=cls")
        expect(page.locator("#status")).to_have_text("2 vectors")
        (expected,) = cosines(
            *np.split(post_files(demo_server, "/embed?pooling=cls", files["chelsea"], files["coffee"]), 2)
        )
        pair = frozenset(("chelsea.jpg", "coffee.jpg"))
        assert told_cosines(page)[pair] == pytest.approx(expected.item(), abs=2e-4)
        assert before[pair] != told_cosines(page)[pair]


def test_a_clicked_patch_shows_what_is_like_it(browser: Browser, demo_server: Server, files: dict[str, Path]) -> None:
    with visit(browser, demo_server) as page:
        show(page, files, "chelsea")
        expect(page.locator("#overlay[data-shows=components]")).to_be_visible()
        components = overlay(page)
        assert components.shape == (14, 14, 3)
        assert len(np.unique(components.reshape(-1, 3), axis=0)) > 50
        tokens = post_files(demo_server, "/embed_all", files["chelsea"])[0]
        before = components
        for row, column in ((3, 4), (10, 12)):
            click_patch(page, row, column)
            expect(page.locator("#patch")).to_contain_text(f"Like the patch in row {row + 1}, column {column + 1}")
            shown = overlay(page)
            assert not np.array_equal(shown, before)
            patches = tokens[1:]  # after the class token
            alike = cosines(patches, patches)[row * 14 + column]
            assert alike.argmax() == row * 14 + column
            brightness = shown.reshape(-1, 3).sum(axis=1, dtype=int)
            assert brightness[row * 14 + column] == brightness.max()
            others = np.delete(np.arange(196), row * 14 + column)
            order = others[np.argsort(alike[others])]
            assert brightness[order[-1]] == brightness.max()
            assert brightness[order[0]] == brightness.min()
            before = shown
        page.click("#components")
        assert np.array_equal(overlay(page), components)


def test_a_patch_is_looked_for_in_the_other_pictures(
    browser: Browser, demo_server: Server, files: dict[str, Path]
) -> None:
    names = ("chelsea", "coffee", "rocket")
    patches = [post_files(demo_server, "/embed_all", files[name])[0, 1:] for name in names]
    with visit(browser, demo_server) as page:
        show(page, files, *names)
        expect(page.locator("#overlay[data-shows=components]")).to_be_visible()
        expect(page.locator("#everywhere")).to_be_hidden()
        click_patch(page, 7, 7)
        page.click("#everywhere")
        for row, column in ((7, 7), (2, 3)):
            click_patch(page, row, column)
            chosen = patches[0][row * 14 + column : row * 14 + column + 1]
            best = {name: cosines(chosen, other).max() for name, other in zip(names[1:], patches[1:], strict=True)}
            ranked = sorted(best, key=best.__getitem__, reverse=True)
            captions = [f"{name}.jpg: up to {best[name]:.3f}" for name in ranked]
            expect(page.locator("#elsewhere figcaption")).to_have_text(captions)
        page.click("#components")
        expect(page.locator("#elsewhere figure")).to_have_count(0)


def test_the_patches_lie_where_the_model_sees_them(
    browser: Browser, text_server: Server, files: dict[str, Path]
) -> None:
    """The short side of 500×375 becomes the model's size: a square in the middle is seen."""
    with visit(browser, text_server) as page:
        show(page, files, "chelsea")
        expect(page.locator("#overlay[data-shows=components]")).to_be_visible()
        lens, stage = (page.locator(name).bounding_box() for name in ("#overlay", "#stage"))
        assert lens
        assert stage
        assert lens["width"] / stage["width"] == pytest.approx(375 / 500, abs=0.02)
        assert lens["height"] == pytest.approx(stage["height"], abs=1)
        assert lens["x"] - stage["x"] == pytest.approx((stage["width"] - lens["width"]) / 2, abs=stage["width"] / 50)


GEOMETRIES = [
    Geometry("exact", 224, 224, 2),
    Geometry("exact", 256, 256, 3, crop=(224, 224)),
    Geometry("short_side", 256, 256, 3, crop=(224, 224)),
    Geometry("short_side", 30, 30, 3, crop=(32, 32)),
    Geometry("none", 0, 0, 2, crop=(100, 80)),
]


def test_the_scripts_compute_what_python_does(browser: Browser, demo_server: Server) -> None:
    """Principal components as NumPy's singular values, and crops as the workers make them."""
    values = np.random.default_rng(3).normal(size=(60, 24)) * 0.7 ** np.arange(24)
    pictures = [(500, 375), (375, 501), (31, 400), (224, 224)]
    asked: list[dict[str, Any]] = [
        {"image": {"resize": each.resize, "resized": [each.height, each.width], "crop": each.crop}, "size": size}
        for each in GEOMETRIES
        for size in pictures
    ]
    with visit(browser, demo_server) as page:
        found = page.evaluate(
            """async ([url, values, dim, asked]) => {
                const { principal } = await import(`${url}/page/pca.js`);
                const { seen } = await import(`${url}/page/geometry.js`);
                const { walked } = await import(`${url}/page/dom.js`);
                const { scores, explained } = principal(Float32Array.from(values), dim);
                const flat = principal(new Float32Array(12), 3);
                return {
                    scores: scores.map((each) => [...each]),
                    explained,
                    flat: flat.explained,
                    seen: asked.map(({ image, size }) => seen(image, ...size)),
                    walked: walked("ArrowUp", { row: 0, column: 1 }, 3, 3),
                    end: walked("End", { row: 2, column: 0 }, 3, 5),
                };
            }""",
            [demo_server.url, values.ravel().tolist(), 24, asked],
        )
    centred = values - values.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    assert found["explained"] == pytest.approx((sizes**2 / (sizes**2).sum())[:3], rel=1e-3)
    for component, scores in enumerate(found["scores"]):
        assert abs(np.corrcoef(scores, left[:, component])[0, 1]) > 0.999
    assert found["flat"] == [0, 0, 0]
    assert (found["walked"], found["end"]) == ({"row": 0, "column": 1}, {"row": 2, "column": 4})
    for question, box in zip(asked, found["seen"], strict=True):
        geometry = GEOMETRIES[asked.index(question) // len(pictures)]
        width, height = resized = geometry.resized_size(*question["size"])
        left_side, top, right, bottom = geometry.crop_box(*resized)
        expected = [left_side / width, top / height, (right - left_side) / width, (bottom - top) / height]
        assert [box[side] for side in ("left", "top", "width", "height")] == pytest.approx(expected)


def test_texts_and_labels_beside_pictures(browser: Browser, text_server: Server, files: dict[str, Path]) -> None:
    with visit(browser, text_server) as page:
        expect(page.locator("#demo")).to_be_hidden()
        show(page, files, "chelsea", "coffee")
        page.fill("#text", "a cat & <b>a mat</b>")
        page.press("#text", "Enter")
        expect(page.locator("#status")).to_have_text("3 vectors")
        expect(page.locator("#tray .name").last).to_have_text("a cat & <b>a mat</b>")
        text = httpx.post(f"{text_server.url}/embed", json={"inputs": ["a cat & <b>a mat</b>"]}).json()
        expected = cosines(post_files(text_server, "/embed", files["chelsea"]), np.array(text, np.float32)).item()
        pair = frozenset(("chelsea.jpg", "a cat & <b>a mat</b>"))
        assert told_cosines(page)[pair] == pytest.approx(expected, abs=2e-4)

        page.fill("#candidates", "a cat, a cup")
        page.click("#score button")
        expect(page.locator("#scores figure")).to_have_count(2)
        labels = {"candidate_labels": ["a cat", "a cup"]}
        sent = {"inputs": data_uri(files["chelsea"].read_bytes()), "parameters": labels}
        best, other = httpx.post(f"{text_server.url}/classify", json=sent).json()
        numbers = page.locator("#scores figure").first.locator(".number").all_text_contents()
        assert numbers == [f"{best['score'] * 100:.1f} %", f"{other['score'] * 100:.1f} %"]

        page.select_option("#pooling", "cls")  # each side's own space
        expect(page.locator("#matrix td.none")).to_have_count(4)


def test_another_model_by_the_menu_and_by_the_path(
    browser: Browser, text_server: Server, files: dict[str, Path]
) -> None:
    with visit(browser, text_server) as page:
        show(page, files, "chelsea")
        page.select_option("#model", "minilm")
        expect(page.locator("#facts")).to_contain_text("takes texts; 384 dimensions")
        expect(page.locator("#tray .failed small")).to_have_text("minilm takes no pictures")
        expect(page.locator("#drop")).to_be_hidden()
    with visit(browser, text_server, "/m/minilm/") as page:
        expect(page.locator("#model")).to_have_value("minilm")
        for text in ("A man is eating food.", "Somebody has a meal."):
            page.fill("#text", text)
            page.press("#text", "Enter")
        expect(page.locator("#status")).to_have_text("2 vectors")
        assert told_cosines(page)[frozenset(("A man is eating food.", "Somebody has a meal."))] > 0.6
        expect(page.locator("#patches")).to_be_hidden()


def test_a_bad_file_is_named_and_spoils_no_other(browser: Browser, demo_server: Server, files: dict[str, Path]) -> None:
    with visit(browser, demo_server, fails=True) as page:
        page.set_input_files("#files", [files["broken"], files["chelsea"], files["coffee"]])
        expect(page.locator("#status")).to_have_text("2 vectors, broken.jpg failed")
        expect(page.locator("#tray .failed small")).to_contain_text("image (broken.jpg): ")
        expect(page.locator("#matrix tbody tr")).to_have_count(2)
        page.click("text=chelsea.jpg")
        expect(page.locator("#overlay[data-shows=components]")).to_be_visible()


def test_pictures_are_dropped_pasted_taken_and_drawn(
    browser: Browser, demo_server: Server, files: dict[str, Path]
) -> None:
    transfer = """async ([type, kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(bytes)], `${type}.jpg`, { type: "image/jpeg" }));
        const init = { bubbles: true, cancelable: true, [kind]: data };
        const make = { drop: DragEvent, paste: ClipboardEvent }[type];
        document.body.dispatchEvent(new make(type, init));
    }"""
    content = list(files["coffee"].read_bytes())
    with visit(browser, demo_server) as page:
        page.evaluate(transfer, ["drop", "dataTransfer", content])
        expect(page.locator("#status")).to_have_text("1 vector")
        page.evaluate(transfer, ["paste", "clipboardData", content])
        expect(page.locator("#status")).to_have_text("2 vectors")
        page.click("#camera")
        expect(page.locator("#viewfinder")).to_be_visible()
        page.wait_for_selector("#viewfinder video")
        expect(page.locator("#viewfinder video")).to_have_js_property("readyState", 4)
        page.click("#take")
        expect(page.locator("#status")).to_have_text("3 vectors")
        page.click("#draw")
        expect(page.locator("#status")).to_have_text("9 vectors")
        names = page.locator("#tray .name").all_text_contents()
        assert names[:2] == ["drop.jpg", "paste.jpg"]
        assert names[2].startswith("camera-")


def test_everything_by_keyboard(browser: Browser, demo_server: Server) -> None:
    with visit(browser, demo_server, viewport={"width": 1280, "height": 900}) as page:
        expect(page.locator("#facts")).to_contain_text("dimensions")

        def tab_to(selector: str) -> Locator:
            for _ in range(60):
                page.keyboard.press("Tab")
                if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    return page.locator(":focus")
            raise AssertionError(f"Tab does not lead to {selector}")

        tab_to("#draw").press("Enter")
        expect(page.locator("#status")).to_have_text("6 vectors")
        tab_to("#tray li:nth-child(2) .pick").press("Enter")
        expect(page.locator("#chosen-title")).to_have_text("orange disc.png")
        expect(page.locator(":focus")).to_have_class("pick")
        tab_to("#tray li:nth-child(6) .remove").press("Enter")
        expect(page.locator("#status")).to_have_text("5 vectors")
        expect(page.locator(":focus")).to_have_class("pick")  # not lost
        expect(page.locator("#overlay[data-shows=components]")).to_be_visible()

        cell = tab_to("#matrix td")
        expect(cell).to_have_attribute("aria-label", re.compile("^red disc.png and red disc.png: "))
        for key in ("ArrowDown", "ArrowRight", "ArrowDown", "Home"):
            page.keyboard.press(key)
        expect(page.locator(":focus")).to_have_attribute(
            "aria-label", re.compile("^blue squares.png and red disc.png: ")
        )
        expect(page.locator("#pair")).to_contain_text("blue squares.png, red disc.png")
        page.keyboard.press("Enter")
        expect(page.locator("#chosen-title")).to_have_text("blue squares.png")
        expect(page.locator(":focus")).to_have_attribute("aria-label", re.compile("^blue squares.png and "))

        expect(page.locator("#overlay[data-shows=components]")).to_be_visible()
        tab_to("#stage")
        page.keyboard.press("ArrowDown")
        expect(page.locator("#patch")).to_contain_text("row 2, column 1")
        page.keyboard.press("Enter")
        expect(page.locator("#overlay[data-shows=likeness]")).to_be_visible()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#patch")).to_have_text(
            re.compile(r"The patch in row 2, column 2 to that in row 2, column 1: cosine -?\d\.\d{3}\.")
        )
        page.keyboard.press("Escape")
        expect(page.locator("#overlay[data-shows=components]")).to_be_visible()
        tab_to("#neighbours button").press("Enter")
        expect(page.locator(":focus")).to_have_id("chosen-title")


def test_either_scheme_on_any_screen_for_everybody(
    browser: Browser, text_server: Server, files: dict[str, Path]
) -> None:
    """Nothing is cut off, and axe-core finds nothing: names, roles, contrast."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="uv sync --group clients").Axe()
    with visit(browser, text_server, reduced_motion="reduce") as page:  # colours on their way would be too faint

        def check() -> None:
            for scheme, width in (("light", 1280), ("dark", 360)):
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": 800})
                background = page.evaluate("getComputedStyle(document.body).backgroundColor")
                darkness = sum(map(int, re.findall(r"\d+", background)[:3])) < 3 * 128
                assert darkness is (scheme == "dark")
                assert page.evaluate("document.documentElement.scrollWidth") == width
                results = axe.run(page)
                assert not results.violations_count, f"{scheme}, {width} px: {results.generate_report()}"

        expect(page.locator("#facts")).to_contain_text("dimensions")
        check()
        show(page, files, "chelsea", "coffee", "rocket")
        page.fill("#text", "a cat that is looking straight into the camera, and nothing else")
        page.press("#text", "Enter")
        expect(page.locator("#status")).to_have_text("4 vectors")
        page.click("#score button")
        expect(page.locator("#scores figure")).to_have_count(3)
        expect(page.locator("#overlay[data-shows=components]")).to_be_visible()
        check()


def test_a_key_is_asked_for_and_forgotten_with_the_tab(
    browser: Browser, keyed_server: Server, files: dict[str, Path]
) -> None:
    with visit(browser, keyed_server, fails=True) as page:
        expect(page.locator("#unlock")).to_be_visible()
        expect(page.locator("#key")).to_be_focused()
        expect(page.locator("#trouble")).to_be_hidden()
        for key in ("wrong", "secret"):
            page.fill("#key", key)
            page.press("#key", "Enter")
            if key == "wrong":
                expect(page.locator("#trouble")).to_have_text("the API key is not one of this server's")
        expect(page.locator("#unlock")).to_be_hidden()
        expect(page.locator("#trouble")).to_be_hidden()
        show(page, files, "chelsea")
        expect(page.locator("#snippet")).to_contain_text("$IEI_API_KEY")
        assert "secret" not in page.content()
        page.reload()
        expect(page.locator("#facts")).to_contain_text("dimensions")
        assert page.evaluate("localStorage.length + document.cookie.length") == 0
        other_tab = page.context.new_page()
        other_tab.goto("/")
        expect(other_tab.locator("#unlock")).to_be_visible()


RUNS = {
    "curl": ["bash", "-c"],
    "Python": [sys.executable, "-c"],
    "OpenAI client": [sys.executable, "-W", "ignore", "-c"],
}
"""Button → the command that runs its code."""


def test_the_code_runs_as_it_stands(browser: Browser, keyed_server: Server, files: dict[str, Path]) -> None:
    folder = files["chelsea"].parent
    with visit(browser, keyed_server, fails=True) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.fill("#key", "secret")
        page.press("#key", "Enter")
        page.fill("#text", 'it\'s a "cat" — 猫 \\ $HOME')
        page.press("#text", "Enter")
        page.set_input_files("#files", files["chelsea"])
        expect(page.locator("#status")).to_have_text("2 vectors")
        for language, command in RUNS.items():
            page.click(f"#languages >> text={language}")
            codes = []
            for kind in ("text", "image"):
                page.click(f"#tray li:nth-child({1 + (kind == 'image')}) .pick")
                expect(page.locator("#patches")).to_be_visible(visible=kind == "image")
                page.click("#copy")
                expect(page.locator("#copy")).to_have_text("Copied")
                codes.append(page.evaluate("navigator.clipboard.readText()"))
                assert codes[-1] == page.locator("#snippet").text_content()
            done = subprocess.run(
                [*command, "\n".join(codes)],
                cwd=folder,
                env={**os.environ, "IEI_API_KEY": "secret"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{codes}\n{done.stderr}"
            if language == "curl":
                assert [line.count(",") + 1 for line in done.stdout.replace("]][[", "]]\n[[").splitlines()] == [24, 24]
            else:
                assert done.stdout.split() == ["24", "24"]


@pytest.mark.skipif(not os.environ.get("MAKE_SCREENSHOTS"), reason="makes docs/images anew: MAKE_SCREENSHOTS=1")
def test_screenshots(browser: Browser, demo_server: Server, files: dict[str, Path]) -> None:
    desktop, phone = {"width": 1280, "height": 1160}, {"width": 360, "height": 740}
    for name, scheme, size, scale in (
        ("light", "light", desktop, 1),
        ("dark", "dark", desktop, 1),
        ("phone", "dark", phone, 2),
    ):
        options: dict[str, Any] = {"color_scheme": scheme, "viewport": size, "device_scale_factor": scale}
        with visit(browser, demo_server, **options) as page:
            show(page, files, *IN_SCREENSHOTS)
            page.mouse.move(0, 0)
            expect(page.locator("#overlay[data-shows=components]")).to_be_visible()
            if name == "dark":
                click_patch(page, 6, 5)
                expect(page.locator("#overlay[data-shows=likeness]")).to_be_visible()
                page.click("#everywhere")
                expect(page.locator("#elsewhere figure")).to_have_count(len(IN_SCREENSHOTS) - 1)
                page.mouse.move(0, 0)
                page.evaluate("document.getElementById('chosen').scrollIntoView()")
            if name == "phone":
                page.evaluate("document.getElementById('results').scrollIntoView()")
            picture = Image.open(io.BytesIO(page.screenshot()))
            written = encode(picture.convert("RGB").quantize(256), "PNG", optimize=True)
            assert len(written) <= MOST_BYTES
            (SCREENSHOTS / f"page-{name}.png").write_bytes(written)
