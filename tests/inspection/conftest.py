"""What tests of the log's questions get: the command as people use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inspection.asking import Ended, asked

Logs = Callable[..., Ended]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Logs:
    """Run `logs ARGUMENTS` on the test's folder, in this process."""
    monkeypatch.setenv("LOG_DIR", str(tmp_path))

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        return asked(capsys, *arguments)

    return run
