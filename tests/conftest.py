"""Settles the process (threads, allocator) before any test imports a framework."""

from triptych.runtime import prepare_process

prepare_process()
