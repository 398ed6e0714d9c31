"""Bad input over HTTP: each answered with its status, in the shape of its world. Real processes, stub stages."""

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestrator.gateway.guard import JSON_BYTES
from tests.server import DEADLINE_S, STUBS, eventually, serving

GENERATIONS, JOBS = "/v1/images/generations", "/v1/jobs"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with serving(*STUBS, http=None) as server, httpx.Client(base_url=server.http, timeout=DEADLINE_S) as client:
        eventually(lambda: client.get("/health").status_code == 200, "it serves")
        yield client


def raw(http: httpx.Client, request: bytes) -> bytes:
    """The first bytes of the answer to what no client library would send."""
    with socket.create_connection((http.base_url.host, http.base_url.port or 0), DEADLINE_S) as connection:
        connection.sendall(request)
        return connection.recv(1 << 16)


def ask(http: httpx.Client, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(path, content=content, headers=JSON | headers)


BAD: list[tuple[Any, str]] = [
    ({}, "prompt"),
    ({"prompt": ""}, "`prompt` is blank"),
    ({"prompt": " \n"}, "`prompt` is blank"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ["a"]}, "prompt"),
    ({"prompt": "a\u0000b"}, "NUL"),
    ({"prompt": "x" * 32_001}, "32,000"),
    ({"prompt": "a", "n": 0}, "`n` must be from 1 to 10"),
    ({"prompt": "a", "n": 11}, "`n` must be from 1 to 10"),
    ({"prompt": "a", "n": 10**9}, "`n` must be from 1 to 10"),
    ({"prompt": "a", "n": "2"}, "n"),
    ({"prompt": "a", "steps": 0}, "`steps` must be from 1 to 200"),
    ({"prompt": "a", "steps": 201}, "`steps` must be from 1 to 200"),
    ({"prompt": "a", "steps": 1.5}, "steps"),
    ({"prompt": "a", "guidance_scale": -1}, "`guidance_scale`"),
    ({"prompt": "a", "guidance_scale": 1e308}, "`guidance_scale`"),
    (b'{"prompt": "a", "guidance_scale": NaN}', ""),
    (b'{"prompt": "a", "guidance_scale": Infinity}', ""),
    ({"prompt": "a", "seed": -1}, "`seed` must be from 0"),
    ({"prompt": "a", "seed": 2**64}, "seed"),
    ({"prompt": "a", "seed": "x"}, "seed"),
    ({"prompt": "a", "seed": 1.5}, "seed"),
    ({"prompt": "a", "schedule": "nope"}, "`schedule` 'nope' is unknown; there are ddim"),
    (b"", ""),
    (b"{", ""),
    (b"[]", ""),
    (b'"a"', ""),
    (b"\xff\xfe", ""),
    (b"[" * 100_000 + b"]" * 100_000, ""),
    (b'{"prompt": "a\\ud800"}', ""),
    (b'{"prompt": "a", "steps": ' + b"9" * 5000 + b"}", ""),
]


@pytest.mark.parametrize("path", [GENERATIONS, "/v3/images/generations", JOBS])
@pytest.mark.parametrize(("body", "why"), BAD, ids=[str(body)[:40] for body, _ in BAD])
def test_what_cannot_be_drawn_is_400_in_the_shape_of_openai(path: str, body: Any, why: str, http: httpx.Client) -> None:
    answer = ask(http, path, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert why in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": "a", "size": "512"}, 400, "size"),
        ({"prompt": "a", "size": "512xabc"}, 400, "size"),
        ({"prompt": "a", "size": "0x512"}, 400, "size"),
        ({"prompt": "a", "size": "100000x100000"}, 400, "size"),
        ({"prompt": "a", "width": 4097, "height": 8}, 400, "size"),
        ({"prompt": "a", "response_format": "url"}, 400, "response_format"),
        ({"prompt": "a", "output_format": "gif"}, 400, "output_format"),
        ({"prompt": "a", "partial_images": 4}, 400, "partial_images"),
        ({"prompt": "a", "stream": True, "n": 2}, 400, "n"),
        ({"prompt": "a", "model": "sdxl"}, 404, "model"),
    ],
)
def test_fields_of_openai_s_are_looked_at(body: Any, status: int, param: str, http: httpx.Client) -> None:
    answer = ask(http, GENERATIONS, body)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a", "width": 512, "height": 512},
        {"prompt": "a", "stepz": 4},
        {"prompt": "a", "output_format": "gif"},
        {"prompt": "a", "id": ""},
        {"prompt": "a", "type": "cancel", "x": 1},
    ],
)
def test_the_native_route_is_strict(body: Any, http: httpx.Client) -> None:
    answer = ask(http, JOBS, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"


def test_a_size_is_fitted_and_what_is_ignored_is_told(http: httpx.Client) -> None:
    answer = ask(http, GENERATIONS, {"prompt": "a", "size": "1024x1024", "steps": 1, "quality": "hd", "mood": 1})
    assert answer.status_code == 200
    assert answer.headers["X-Triptych-Size"] == answer.json()["size"] == "128x128"
    assert answer.headers["X-Triptych-Ignored"] == "mood"


@pytest.mark.parametrize("model", ["", "demo", "dall-e-3", "gpt-image-1", "chatgpt-image-latest"])
def test_names_that_front_ends_hard_code_mean_the_model_that_is_served(model: str, http: httpx.Client) -> None:
    answer = ask(http, GENERATIONS, {"prompt": "a", "steps": 1, "model": model})
    assert answer.status_code == 200
    assert base64.b64decode(answer.json()["data"][0]["b64_json"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("path", [GENERATIONS, JOBS, "/sdapi/v1/txt2img"])
def test_a_body_that_is_too_large_is_refused_unread(path: str, http: httpx.Client) -> None:
    length = JSON_BYTES + 1
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 413 " in raw(http, f"{head}Content-Length: {length}\r\n\r\n".encode()), "before it has come"
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert b" 413 " in raw(http, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 17)


@pytest.mark.parametrize("path", [GENERATIONS, JOBS, "/sdapi/v1/txt2img"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_another_type_is_415(path: str, kind: str, http: httpx.Client) -> None:
    answer = http.post(path, content=b'{"prompt": "a"}', headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize(("path", "key"), [(GENERATIONS, "error"), (JOBS, "error"), ("/sdapi/v1/txt2img", "detail")])
def test_every_world_has_its_own_shape(path: str, key: str, http: httpx.Client) -> None:
    assert key in ask(http, path, b"{").json()
    wrong = http.put(path, content=b"{}")
    assert (wrong.status_code, key in wrong.json()) == (405, True)


@pytest.mark.parametrize("path", ["/", "/v1/images/edits", "/v1/images/variations", "/sdapi/v1/img2img", "/nowhere"])
def test_what_is_not_there_says_so(path: str, http: httpx.Client) -> None:
    answer = ask(http, path, {})
    assert answer.status_code in (404, 405, 501)
    assert answer.headers["content-type"] == "application/json"


# Who may ask.


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:7800"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:7800"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Authorization": ""}, 200),
        ({"Authorization": "Bearer anything"}, 200),
    ],
)
def test_pages_of_others_can_neither_ask_nor_pretend(headers: dict[str, str], status: int, http: httpx.Client) -> None:
    answer = ask(http, GENERATIONS, {"prompt": "a", "steps": 1}, **headers)
    assert answer.status_code == status, answer.text


def test_reading_is_not_opened_to_other_origins(http: httpx.Client) -> None:
    answer = http.get("/v1/models", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    preflight = http.options(GENERATIONS, headers={"Origin": "http://evil.example"})
    assert preflight.status_code == 204
    assert not any(name.startswith("access-control") for name in preflight.headers)


@pytest.mark.parametrize("job", ["none", "../health", "%2e%2e%2fhealth", "x" * 5000, "a%00b", "%ff"])
def test_a_job_that_is_none_is_404(job: str, http: httpx.Client) -> None:
    for path in ("", "/image", "/events"):
        assert http.get(f"{JOBS}/{job}{path}").status_code in (404, 405)


@pytest.mark.parametrize(
    "request_line", [b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 64]
)
def test_what_is_no_http_ends_nothing(request_line: bytes, http: httpx.Client) -> None:
    raw(http, request_line)
    assert http.get("/health").status_code == 200
