"""One harness for all that reads what strangers write: `readers` is the table, `changes` damages, `limits` bounds.

`test_fuzz.py` draws with hypothesis in `make test`; `with_atheris.py` is led by the code's own branches, in
`make test-all`. Nothing but a TriptychError may come out, in bounded time and memory. What was found: docs/security.md.
A new reader is a row of `readers.READERS`."""
