"""One architecture, three frameworks, proof that they agree. Start at `triptych.spec` and `triptych.backend`."""

__version__ = "0.1.0"
