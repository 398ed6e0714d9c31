"""The official MCP client, unmodified, against a server with stub stages."""

import base64
from collections.abc import Iterator

import anyio
import pytest

from tests.server import STUBS, serving

mcp = pytest.importorskip("mcp", reason="the extra `mcp` is not installed")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(*STUBS, http=None) as server:
        yield f"{server.http}/mcp"


def test_a_host_finds_the_tools_and_draws(url: str) -> None:
    async def talk() -> None:
        told: list[float] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            told.append(done)

        async with mcp.Client(url) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == {"generate_image", "get_image", "server_status"}
            asked = {"prompt": "[slow] a fox", "steps": 30, "seed": 7}
            drawn = await client.call_tool("generate_image", asked, progress_callback=progress)
            assert not drawn.is_error
            image, text = drawn.content
            assert base64.b64decode(image.data).startswith(b"\x89PNG")
            assert image.mime_type == "image/png"
            assert "seed 7" in text.text
            again = await client.call_tool("get_image", {"job_id": text.text.rpartition(" ")[2]})
            assert again.content[0].data == image.data
            status = await client.call_tool("server_status", {})
            assert "model demo" in status.content[0].text
        assert told, "progress was told"

    anyio.run(talk)


@pytest.mark.parametrize(
    ("tool", "asked", "why"),
    [
        ("generate_image", {"prompt": " "}, "`prompt` is blank"),
        ("generate_image", {"prompt": "a", "steps": 0}, "`steps` must be from 1 to 200"),
        ("generate_image", {"prompt": "a", "size": "huge"}, "is no size"),
        ("get_image", {"job_id": "none"}, "there is no such job"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(url: str, tool: str, asked: dict[str, object], why: str) -> None:
    async def talk() -> None:
        async with mcp.Client(url) as client:
            found = await client.call_tool(tool, asked)
            assert found.is_error
            assert why in found.content[0].text

    anyio.run(talk)
