"""Part 1 of gpu.py: the judge on the device, bugs that it must find there, and training equal to the CPU's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.backend.precision import values
from triptych.conformance import certificate, suite
from triptych.conformance.case import conformance_architecture, conformance_options, make_case
from triptych.conformance.compare import failures, worst
from triptych.conformance.conform import PRECISIONS
from triptych.conformance.conform import conform as judge
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.trajectory import follow, judge_trajectory, make_trajectory
from triptych.spec.layers import Architecture, BatchNorm, Block, Layer

Result = tuple[str, dict[str, Any]]
STEPS = 20


def conform(options: argparse.Namespace, arch: str) -> Iterator[Result]:
    """Every level on every backend in both precisions, the flags before and after, a certificate."""
    backends = [registry.load(name) for name in options.backends]
    before = {backend.name: values(backend.precision_flags(options.device)) for backend in backends}
    verdict = suite.run(conformance_architecture(arch), backends, device=options.device)
    for report in (*verdict.reports, *verdict.pairs):
        worst_check = worst(report.checks)
        facts = {"passed": report.passed, "checks": len(report.checks), "failures": len(report.failures)}
        yield report.title, facts | {"worst": worst_check.text if worst_check else "", "not_run": report.not_run}
    for backend in backends:
        after = values(backend.precision_flags(options.device))
        yield f"{backend.name} flags", {"passed": before[backend.name] == after, "before": before[backend.name]}
    certified = certificate.make(
        [verdict], [conformance_options(arch)], backends, precisions=PRECISIONS, seed=0, device=options.device
    )
    certificate.write(options.out / f"certificate-{arch}.json", certified)
    yield "certificate", {"passed": certified.passed, "digest": certified.digest}


def _other_eps(architecture: Architecture) -> Architecture:
    """The batch norms' eps a hundred times as large."""

    def changed(layer: Layer) -> Layer:
        if isinstance(layer, Block):
            return replace(layer, layers=tuple(map(changed, layer.layers)))
        return replace(layer, eps=100 * layer.eps) if isinstance(layer, BatchNorm) else layer

    return replace(architecture, layers=tuple(map(changed, architecture.layers)))


def _halved(backend: Backend) -> Any:
    """A backend whose gradients of biases are half."""

    def gradients(*arguments: Any, **named: Any) -> Any:
        loss, found = backend.gradients(*arguments, **named)
        return loss, {path: value / 2 if path.endswith("bias") else value for path, value in found.items()}

    return SimpleNamespace(**vars(backend) | {"gradients": gradients})


def _mirrored(backend: Backend) -> Any:
    """A backend that is given every image mirrored in its forward pass."""

    def forward(network: Any, images: Any, **named: Any) -> Any:
        return backend.forward(network, images[..., ::-1].copy(), **named)

    return SimpleNamespace(**vars(backend) | {"forward": forward})


def planted(options: argparse.Namespace) -> Iterator[Result]:
    """Bugs that the judge must find on the device: passed means found."""
    architecture = conformance_architecture("vgg11_bn")
    run = ReferenceRun(make_case(architecture))
    for name in options.backends:
        backend = registry.load(name)
        build = partial(backend.build, device=options.device, execution=exact("fp64"))
        bugs: dict[str, tuple[Any, Any]] = {
            "eps of batch norm": (backend, lambda architecture, build=build: build(_other_eps(architecture))),
            "halved gradients": (_halved(backend), build),
            "mirrored images": (_mirrored(backend), build),
        }
        for bug, (faulty, make) in bugs.items():
            report = judge(faulty, run, "fp64", device=options.device, build=make)
            found = sorted({check.level for check in report.failures})
            yield f"{name}: {bug}", {"passed": bool(found), "found_at": found}


def trajectory(options: argparse.Namespace) -> Iterator[Result]:
    """Steps of training in float64 on the device against the same on the CPU: parameters, statistics, velocities."""
    steps = make_trajectory(make_case(conformance_architecture("lenet" if options.tiny else "vgg11_bn")), STEPS)
    for name in options.backends:
        backend = registry.load(name)
        with backend.precise(options.device):
            ran = {
                device: follow(backend, _build(backend, steps.case.architecture, device), steps)
                for device in ("cpu", options.device)
            }
        checks = judge_trajectory(ran["cpu"], ran[options.device])
        nearest = worst(checks)
        yield name, {"passed": bool(checks) and not failures(checks), "worst": nearest.text if nearest else "nothing"}


def _build(backend: Backend, architecture: Architecture, device: str) -> Any:
    return backend.build(architecture, device=device, execution=exact("fp64", "full"))
