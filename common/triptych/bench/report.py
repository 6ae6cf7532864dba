"""What a measurement says: a table, JSON and CSV."""

import csv
import io
import os
from typing import Any

import numpy as np

from triptych import zoo
from triptych.bench import flops
from triptych.bench.accuracy import SAME_ACCURACY
from triptych.bench.measure import Bench, Speeds, differs, same_start
from triptych.bench.tasks import KINDS
from triptych.spec import analysis, records
from triptych.utils.process import cores, vector_features

COLUMNS = ("subject", "kind", "images/s", "p10 to p90", "ratio", "CPU ms/image", "of best product")


def as_dict(bench: Bench) -> dict[str, Any]:
    """The measurement as JSON has it, with the machine."""
    return {
        "arch": bench.recipe.architecture,
        "input": list(bench.architecture.input),
        "parameters": analysis.totals(bench.architecture).parameters,
        "data": bench.recipe.data,
        "batch_size": bench.recipe.batch_size,
        "precision": bench.recipe.precision,
        "device": bench.device,
        "steps": bench.steps,
        "rounds": bench.rounds,
        "cores": cores(),
        "vector_features": list(vector_features()),
        "processor": processor(),
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "load_before": bench.load,
        "gate": records.encode(bench.gate),
        "rows": [_row(bench, row) for row in bench.rows],
        "against_textbook": {
            row.task.backend: speed_up(row, other) for row in bench.rows for other in bench.rows if is_pair(row, other)
        },
    }


def processor() -> str:
    """The processor's name, as Linux has it; empty where it does not tell."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""


def _row(bench: Bench, row: Speeds) -> dict[str, Any]:
    first = bench.rows[0]
    found: dict[str, Any] = {"backend": row.task.backend, "subject": row.task.name, "peer": row.task.peer}
    found |= {"precision": row.task.recipe.precision, "first_step": row.first, "same_start": same_start(row, first)}
    found |= {"accuracies": row.accuracies, "differs": differs(row, first)}
    found |= row.facts
    cost = {"training": flops.of_training(bench.architecture), "inference": flops.of_inference(bench.architecture)}
    for kind in (kind for kind in KINDS if kind in row.images_per_second):
        speeds = row.images_per_second[kind]
        median, (low, high) = float(np.median(speeds)), (float(v) for v in np.percentile(speeds, (10, 90)))
        per_image = float(np.median(row.cpu_seconds_per_image[kind]))
        facts = {"images_per_second": median, "p10": low, "p90": high, "rounds": speeds}
        facts |= {"cpu_seconds_per_image": per_image, "ratio": None}
        if kind in first.images_per_second and not found["differs"]:
            facts["ratio"] = median / float(np.median(first.images_per_second[kind]))
        if kind in cost and row.products:
            facts["of_best_product"] = cost[kind] * median / max(row.products)
        found[kind] = facts
    return found | {"best_product_flops": max(row.products, default=None)}


def table(bench: Bench) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row per subject and kind: medians over the rounds, and ratios to the first subject; a first loss, or an
    accuracy, that is not the first subject's gives no ratio."""
    rows: list[tuple[str, ...]] = []
    for row in as_dict(bench)["rows"]:
        for kind in (kind for kind in KINDS if kind in row):
            facts = row[kind]
            ratio = f"{facts['ratio']:.2f}" if facts["ratio"] is not None else row["differs"]
            share = f"{facts['of_best_product']:.0%}" if "of_best_product" in facts else ""
            span, per_image = f"{facts['p10']:.0f} to {facts['p90']:.0f}", 1e3 * facts["cpu_seconds_per_image"]
            speed = f"{facts['images_per_second']:.0f}"
            rows.append((row["subject"], kind, speed, span, ratio, f"{per_image:.3f}", share))
    return COLUMNS, rows


def footnotes(bench: Bench) -> list[str]:
    """A line per subject: its first step, its memory, its versions."""
    lines = []
    for row in as_dict(bench)["rows"]:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        text = f"{row['subject']}: first step and warm-up {row['first_step']['seconds']:.1f} s, loss "
        without = " without dropout" if row["first_step"].get("without_dropout") else ""
        text += f"{row['first_step']['loss']:.4f}{without}; peak memory {row['peak_memory'] / 2**20:.0f} MiB"
        if row.get("peak_device_memory"):
            text += f", on the device {row['peak_device_memory'] / 2**20:.0f} MiB"
        lines.append(f"{text}; {row['precision']}{'; ' + versions if versions else ''}")
    lines += [_accuracy(bench, row) for row in bench.rows if row.accuracies]
    return lines + [_speed_up(row, other) for row in bench.rows for other in bench.rows if is_pair(row, other)]


def is_pair(row: Speeds, other: Speeds) -> bool:
    """Whether these are a backend and the loop of its own framework's textbook."""
    return other.task.peer and not row.task.peer and row.task.backend == other.task.backend


def speed_up(row: Speeds, other: Speeds) -> dict[str, float]:
    """By kind, how many times as fast the first is; nothing where first losses or accuracies are not one."""
    if differs(row, other):
        return {}
    ours, theirs = row.images_per_second, other.images_per_second
    shared = [kind for kind in KINDS if kind in ours and kind in theirs]
    return {kind: float(np.median(ours[kind]) / np.median(theirs[kind])) for kind in shared}


def _accuracy(bench: Bench, row: Speeds) -> str:
    gate, single = bench.gate, ", ".join(f"{value:.4f}" for value in row.accuracies)
    text = f"{row.task.name}: test accuracy {np.mean(row.accuracies):.4f} ({single}) after {gate.epochs} epochs"
    return f"{text} at {gate.learning_rate:g}, {gate.seeds} seeds; the same are means within {SAME_ACCURACY:g}"


def _speed_up(row: Speeds, other: Speeds) -> str:
    found = speed_up(row, other)
    if not found and same_start(row, other):
        return f"{row.task.name} against its textbook's loop: the accuracies differ, so no ratio counts"
    if not found:
        losses = f"{row.first['loss']:.4f} and {other.first['loss']:.4f}"
        return f"{row.task.name} against its textbook's loop: the first losses differ ({losses}), so no ratio counts"
    return f"{row.task.name} against its textbook's loop: " + ", ".join(f"{k} {v:.2f}x" for k, v in found.items())


def narrowed(bench: Bench) -> str:
    """What of a network of the zoo is smaller here than in its source; empty if nothing is."""
    options = bench.recipe.network
    if bench.recipe.spec is not None:
        return ""
    (_, *size), (_, *own) = bench.architecture.input, zoo.get_entry(bench.architecture.name).input
    said = [f"channels / {options.width_ratio:g} (--width-ratio 1)"] if options.width_ratio != 1 else []
    if size != own:
        said.append(f"{size[0]}x{size[1]} pixels for {own[0]}x{own[1]} (--resolution {own[0]})")
    return ", ".join(said)


def as_csv(bench: Bench) -> str:
    """A line for each subject, kind and round."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("subject", "kind", "round", "images_per_second", "cpu_seconds_per_image"))
    for row in bench.rows:
        for kind, speeds in row.images_per_second.items():
            pairs = zip(speeds, row.cpu_seconds_per_image[kind], strict=True)
            writer.writerows((row.task.name, kind, number, *pair) for number, pair in enumerate(pairs))
    return text.getvalue()
