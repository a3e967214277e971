"""Starts the server under test on free loopback ports, and asks its admin API."""

import collections
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target")
BINARY = os.environ.get("SLUICE_BIN", str(TARGET / "debug/sluice"))
SHARDS = 2
START_SECONDS = 10
STOP_SECONDS = 5


class Server:
    """A running `sluice`, with the last lines of its log."""

    def __init__(self, process):
        self.process = process
        self.http = self.admin = None
        self._lines = collections.deque(maxlen=200)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    def start(cls, ice):
        command = [BINARY, "--http-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"]
        command += ["--media-ip", "127.0.0.1", "--public-ip", "127.0.0.1", "--media-port", "0"]
        command += ["--shards", str(SHARDS), "--ice", ice]
        # The settings under test come from the flags alone.
        env = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        server = cls(process)
        deadline = time.monotonic() + START_SECONDS
        while not server._ready():
            ended = process.poll()
            if ended is not None or time.monotonic() > deadline:
                process.kill()
                server._reader.join()
                raise RuntimeError(f"the server is not ready (status {ended}): {' '.join(command)}\n{server.log()}")
            time.sleep(0.05)
        return server

    def stop(self):
        """Asks for an orderly end by SIGTERM, and demands it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f"SIGTERM did not end the server in {STOP_SECONDS} s\n{self.log()}") from None
        if status != 0:
            raise RuntimeError(f"after SIGTERM the server ended with status {status}\n{self.log()}")

    def sessions(self, stream, role):
        """The sessions of one stream in one role, oldest first."""
        with urllib.request.urlopen(f"{self.admin}/api/v1/sessions", timeout=5) as reply:
            body = json.load(reply)
        found = [session for session in body if session["stream"] == stream and session["role"] == role]
        return sorted(found, key=lambda session: session["created"])

    def describe_sessions(self):
        try:
            with urllib.request.urlopen(f"{self.admin}/api/v1/sessions", timeout=5) as reply:
                return json.dumps(json.load(reply), indent=1)
        except (OSError, ValueError) as error:
            return str(error)

    def log(self):
        return "\n".join(self._lines)

    def _read(self):
        for line in self.process.stdout:
            self._lines.append(line.rstrip("\n"))
            if '"sluice is ready"' in line:
                ready = json.loads(line)
                self.http, self.admin = ready["pages"].rstrip("/"), ready["admin"].rstrip("/")

    def _ready(self):
        return self.admin is not None
