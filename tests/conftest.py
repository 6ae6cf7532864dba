"""Settles the process (threads, allocator) before any test imports a framework; prints the matrix of planted faults."""

from typing import Any

from triptych.runtime import prepare_process

prepare_process()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Mutant x backend, from the properties of the tests that ran; nothing is written."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    properties = (pair for report in reports for pair in getattr(report, "user_properties", ()))
    results = list(dict.fromkeys(tuple(value) for name, value in properties if name == "mutant"))
    if results:
        from mutants import CATALOGUE, matrix
        from triptych.backend import BACKENDS

        terminalreporter.section("planted faults: killed at which level")
        for line in matrix.lines(list(CATALOGUE.values()), list(BACKENDS), results):
            terminalreporter.write_line(line)
