"""The page of `mop serve` taken apart: its tags and its words, and the page of a small mixture."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import httpx2
from fake_upstream import FakeUpstream
from serving import QUICK, Running, running, serve_small
from small import small_mixture

from mop.serve.app import create_app
from mop.serve.upstream import Upstream

HOSTILE = '</pre><script>window.pwned=1</script>"onload="pwned()\' <img src=x onerror=pwned()>'


def page_of(upstream: FakeUpstream, **changes: Any) -> str:
    """Return the page of a small mixture with these changes."""
    mixture = small_mixture(**changes)
    with running(create_app([serve_small("bank", Upstream(upstream.base_url), mixture=mixture)], limits=QUICK)) as one:
        response = one.get("/")
    assert response.status_code == 200
    return response.text


class Elements(HTMLParser):
    """The start tags and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def words(html: str) -> str:
    return " ".join(Elements(html).text.split())


def tried(server: Running, query: Any, **more: Any) -> httpx2.Response:
    return server.post("/page/try", {"model": "bank", "query": query, **more})
