"""Clients that are no Python libraries: their requests, replayed."""

import http.client
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.clients.exchange import Recording, recordings, replay
from tests.http import SIZES, serving_http
from tests.server import DEADLINE_S


@pytest.fixture(scope="module")
def server() -> Iterator[http.client.HTTPConnection]:
    """A connection that sends headers as they are: some clients send a scheme without credentials."""
    with serving_http(*SIZES) as (_, url), closing(_connection(url)) as server:
        yield server


def _connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE_S)


@pytest.mark.parametrize("recording", recordings(), ids=lambda recording: recording.client)
def test_a_client_finds_what_it_reads(recording: Recording, server: http.client.HTTPConnection) -> None:
    replay(recording, server)


def test_there_are_recordings() -> None:
    assert {"Open WebUI", "SillyTavern", "LibreChat"} <= {recording.client for recording in recordings()}
