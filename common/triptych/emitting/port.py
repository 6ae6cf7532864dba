"""`triptych port`: somebody's network as a folder of native source and weights, judged as they lie there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triptych.backend import registry
from triptych.emitting import port_certificate, port_folder
from triptych.emitting.port_check import Ported
from triptych.emitting.port_folder import PortSource
from triptych.importers.steps import Imported
from triptych.utils.errors import TriptychError
from triptych.utils.files import write_atomically
from triptych.utils.process import return_large_memory


@dataclass(frozen=True, eq=False)
class PortedFolder:
    """A folder that was written: what was found of each network in it, by backend, and of the source, where its own
    framework is here; else `not_run` says why it is not. `certificate` is what was written as such, in a new folder."""

    folder: Path
    ported: Mapping[str, Ported]
    not_run: Mapping[str, str] = field(default_factory=dict)
    certificate: bytes = b""

    @property
    def passed(self) -> bool:
        """No difference anywhere, and all files ran."""
        return all(one.passed for one in self.ported.values()) and not self.not_run.keys() & registry.BACKENDS.keys()


def port(imported: Imported, source: PortSource, backends: Sequence[str], folder: Path) -> PortedFolder:
    """Write the new `folder`, check what lies in it, and write of that its README and certificate. Raises TriptychError
    if the folder is there already, or a backend is not."""
    return_large_memory()
    port_folder.write(imported, backends, folder)
    expect = port_folder.expectation(folder)
    ported = port_folder.check(folder, backends, expect)
    not_run = {}
    try:
        ported[port_certificate.SOURCE] = port_folder.check_source(source, imported, expect)
    except TriptychError as error:
        not_run[port_certificate.SOURCE] = str(error)
    text = port_folder.read_me(imported, ported, not_run, source.name)
    write_atomically(folder / port_folder.README, text.encode())
    content = port_certificate.write(folder, ported, not_run, source.name)
    return PortedFolder(folder, ported, not_run, content)


def check(folder: Path) -> PortedFolder:
    """Whether the files in a folder that `port` has written are still the network of the spec beside them."""
    names, expect = port_folder.backends_in(folder), port_folder.expectation(folder)
    ported: dict[str, Ported] = {}
    not_run: dict[str, str] = {}
    for name in names:
        try:
            ported |= port_folder.check(folder, [name], expect)
        except TriptychError as error:  # what else lies there is judged
            not_run[name] = str(error)
    if not ported:
        raise TriptychError(next(iter(not_run.values())))
    return PortedFolder(folder, ported, not_run)
