"""A secret that gives access to a source is in nothing that a run prints or leaves behind, whether it succeeds or fails."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.flows.conftest import clone
from tests.support.classify import EXAMPLE
from tests.support.sources import zip_of
from tests.support.web import served

pytestmark = pytest.mark.slow

TOKEN, KEY = "-".join(("planted", "token", "4711")), "/".join(("planted", "secret+key", "0815"))  # the clone has this file too
FORMS = [
    form.encode()
    for secret in (TOKEN, KEY)
    for form in (secret, base64.b64encode(secret.encode()).decode(), secret.encode().hex())
]


def planted_in(folder: Path) -> list[str]:
    """The files in which one of the secrets is; tables are read, as their content is compressed."""
    found = []
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            content += str(
                [table.drop_columns(["image"] if "image" in table.column_names else []).to_pydict(), table.schema.metadata]
            ).encode()
        if any(form in content for form in FORMS):
            found.append(str(path.relative_to(folder)))
    return found


def test_no_secret_of_a_source_is_left_behind_or_printed(tmp_path: Path) -> None:
    checkout = clone(tmp_path / "clone")
    EXAMPLE.write(tmp_path / "source")
    files = {
        path.relative_to(tmp_path / "source").as_posix(): path.read_bytes() for path in (tmp_path / "source").rglob("*.png")
    }
    secrets = {"EVERGREEN_PET_TOKEN": TOKEN, "AWS_SECRET_ACCESS_KEY": KEY}
    with served() as web:
        web.files["/pets.zip"], web.token = zip_of(tmp_path / "pets.zip", files).read_bytes(), TOKEN
        access = {"private_addresses": True, "token_variable": "EVERGREEN_PET_TOKEN"}
        collect = {"file": "pets.zip", "url": f"{web.address}/pets.zip", "download": access}
        settings = dict(EXAMPLE.settings) | {"collect": collect, "evaluate": {"latency_items": 10}}
        (checkout.root / "scenarios/brightness.yaml").write_text(json.dumps(settings))
        web.token = "another"
        refused = checkout.evergreen("run", "brightness", **secrets)
        assert refused.status == 1 and "the server answers 401" in refused.err
        web.token = TOKEN
        done = checkout.evergreen("run", "brightness", "--json", **secrets)
        assert done.status == 0, done.err
    assert (None, f"Bearer {TOKEN}") in [(wanted, token) for _, wanted, token in web.requests]
    assert TOKEN not in (printed := refused.out + refused.err + done.out + done.err) and KEY not in printed
    assert planted_in(checkout.root) == []
