"""Credentials are kept out of texts."""

from __future__ import annotations

import pytest

from evergreen.secrets import shown, without_secrets


def test_values_of_the_environment_and_credentials_of_addresses_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted/secret+1")
    monkeypatch.setenv("PET_TOKEN", "abc")  # too short to be replaced everywhere
    text = without_secrets(
        "planted/secret+1 at postgresql://anna:geheim@host/db and https://h/a?x=1&X-Amz-Signature=feed&b=2 abc"
    )
    assert text == "*** at postgresql://***@host/db and https://h/a?x=1&X-Amz-Signature=***&b=2 abc"


def test_an_address_is_shown_without_query_and_credentials() -> None:
    assert shown("https://anna:geheim@example.org:8/a/b.tar?token=1#x") == "https://example.org:8/a/b.tar"
