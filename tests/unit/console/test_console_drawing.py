"""How pages are drawn."""

from aiohttp.test_utils import make_mocked_request

from dispatcher.console.assets import Assets
from dispatcher.console.drawing import SECURITY_HEADERS, Drawing


def test_a_character_that_can_be_no_utf_8_costs_no_page():
    """It stands there escaped, wherever it came from; the page has its headers."""
    drawing = Drawing(Assets())
    page = drawing.problem(make_mocked_request("GET", "/console"), None, 404, "gr\u00fcn \ud800 <b>")
    assert page.status == 404
    assert "grün \\ud800 &lt;b&gt;".encode() in page.body
    assert page.headers["Content-Security-Policy"] == SECURITY_HEADERS["Content-Security-Policy"]
