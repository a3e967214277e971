"""The server under test: one for each kind of ICE, started once."""

import pytest

from sluice import Server


@pytest.fixture(scope="session", params=["lite", "full"])
def server(request):
    started = Server.start(ice=request.param)
    yield started
    started.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the server's side of a failure beside the test's."""
    report = (yield).get_result()
    if report.failed and call.when == "call" and "server" in item.funcargs:
        running = item.funcargs["server"]
        report.sections.append(("sessions of the server", running.describe_sessions()))
        report.sections.append(("log of the server", running.log()))
