"""The compose file and the systemd unit of the examples, checked without Docker and systemd."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from datadog_caselinks.cli import fleet, run
from datadog_caselinks.cli.command import caselinks

EXAMPLES = Path(__file__).parents[2] / "examples" / "fleet"
LONGEST_END = fleet._END + run._SPEAKING
"""The maximum seconds from SIGTERM to the end of the command. ``end_within`` enforces it."""


@pytest.fixture
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]
    return services


@pytest.fixture
def unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(EXAMPLES / "caselinks-worker@.service")
    return unit


def is_a_command(words: list[str]) -> bool:
    """Return whether the words are an existing caselinks command with valid options."""
    done = CliRunner().invoke(caselinks, [*words[1:], "--help"])
    return Path(words[0]).name == "caselinks" and done.exit_code == 0 and "Usage:" in done.output


def commands_named(text: str) -> list[list[str]]:
    """Return the caselinks commands in the comments of a text."""
    lines = [line[line.index("caselinks fleet") :] for line in text.splitlines() if "caselinks fleet" in line]
    return [shlex.split(line) for line in lines if "[" not in line]


class TestCompose:
    def test_runs_commands_that_there_are(self, services: dict[str, Any]) -> None:
        """The compose file runs existing commands, and creates the tables before its four workers start."""
        assert is_a_command(services["tables"]["command"])
        assert is_a_command(services["worker"]["command"])
        assert services["worker"]["depends_on"] == {"tables": {"condition": "service_completed_successfully"}}
        assert services["worker"]["deploy"]["replicas"] == 4

    def test_comes_from_one_image(self, services: dict[str, Any]) -> None:
        """All services use one image, built from this folder, and get the keys as variables."""
        recipe = services["worker"]["build"]["dockerfile_inline"]
        assert recipe == services["tables"]["build"]["dockerfile_inline"]
        assert "COPY . /src\nRUN pip install --no-cache-dir '/src[cli,distributed,speed]'\n" in recipe
        project = EXAMPLES / services["worker"]["build"]["context"]
        assert (project / "pyproject.toml").is_file()
        assert services["worker"]["environment"]["DD_API_KEY"] is None

    def test_names_existing_commands(self) -> None:
        """The commands in the comments of the compose file exist."""
        reported = commands_named((EXAMPLES / "compose.yaml").read_text())
        assert len(reported) == 2
        assert all(map(is_a_command, reported))

    def test_leaves_a_worker_the_time_to_end(self, services: dict[str, Any]) -> None:
        """The stop grace period is longer than the time after which the command ends by itself."""
        assert float(services["worker"]["stop_grace_period"].removesuffix("s")) > LONGEST_END


class TestUnit:
    def test_runs_a_command_that_there_is(self, unit: configparser.ConfigParser) -> None:
        """The unit runs an existing command, with keys from a separate environment file."""
        assert is_a_command(shlex.split(unit["Service"]["ExecStart"]))
        assert unit["Service"]["EnvironmentFile"] == "/etc/caselinks/worker.env"

    def test_takes_a_worker_that_was_stopped_for_one(self, unit: configparser.ConfigParser) -> None:
        """The unit treats status 143 as success and gives a worker enough time to end."""
        assert unit["Service"]["SuccessExitStatus"] == "143"
        assert float(unit["Service"]["TimeoutStopSec"]) > LONGEST_END
