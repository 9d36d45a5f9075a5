"""/docs in a real browser: the routes are shown and can be tried out, and nothing is asked of another host."""

from __future__ import annotations

from tests.page.browsing import MARKS, Browser, Locator, Page, expect, visit
from tests.servers import Server

pytestmark = MARKS


def try_out(page: Page, path: str, method: str = "post") -> Locator:
    """Executes the first example of a route. Returns the status that the page shows."""
    route = page.locator(f".opblock-{method}").filter(has=page.locator(f'[data-path="{path}"]'))
    route.locator(".opblock-summary").click()
    route.get_by_role("button", name="Execute").click()
    return route.locator(".live-responses-table .response-col_status").last


def test_routes_are_in_groups_after_an_introduction_and_their_examples_run(
    text_server: Server, browser: Browser
) -> None:
    with visit(browser, text_server, "/docs") as page:
        introduction = page.locator(".info .description")
        expect(introduction).to_contain_text("turns images and texts into vectors, with the model clip")
        expect(introduction).to_contain_text(f"curl {text_server.url}/embed")
        groups = page.locator(".opblock-tag")
        expect(groups.first).to_contain_text("IEI and text-embeddings-inference")
        expect(page.locator('[data-path="/embed"]')).to_be_visible()
        expect(page.get_by_text("Embed texts and images as OpenAI does")).to_be_visible()
        for path, method in {"/embed": "post", "/v2/models/{model}/infer": "post", "/v1/models/{model}": "get"}.items():
            expect(try_out(page, path, method)).to_contain_text("200")


def test_below_a_model_s_address_that_model_answers(text_server: Server, browser: Browser) -> None:
    with visit(browser, text_server, "/m/minilm/docs") as page:
        expect(try_out(page, "/info", "get")).to_contain_text("200")
        expect(page.locator(".live-responses-table")).to_contain_text('"model_name": "minilm"')


def test_a_key_is_asked_for_kept_and_sent(keyed_server: Server, browser: Browser) -> None:
    with visit(browser, keyed_server, "/docs", fails=True) as page:
        expect(page.locator("#unlock")).to_be_visible()
        page.fill("#key", "wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#trouble")).to_contain_text("not one of this server's")
        page.fill("#key", "secret")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#unlock")).to_be_hidden()
        expect(try_out(page, "/embed")).to_contain_text("200")
        page.goto("/docs?again")
        expect(page.locator('[data-path="/embed"]')).to_be_visible()
        expect(page.locator("#unlock")).to_be_hidden()
