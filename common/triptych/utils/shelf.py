"""Named arrays of which the large ones lie on the disk where memory is short: 140 million weights are judged in a few
gigabytes."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from triptych.utils import memory
from triptych.utils.arrays import Array
from triptych.utils.lazy import np
from triptych.utils.process import memory_is_short

LARGE = 2**17  # bytes
_SHARE = 8  # the shelves of a process hold this part of the memory that was free at the first large array


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


class Room:
    """How many bytes of large arrays all shelves of this process hold in memory, and may (`most`; by default a share of
    what is free when it is first asked). Files were a third of the time in which ResNet-18 is judged."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._kept: weakref.WeakValueDictionary[int, Array] = weakref.WeakValueDictionary()
        self._numbers = count()

    @property
    def held(self) -> int:
        """Bytes of what lives."""
        return sum(array.nbytes for array in self._kept.values())

    def take(self, array: Array) -> Array | None:
        """A copy of `array` that is counted as long as it lives; None if there is no room for it."""
        if self.most is None:
            self.most = (memory.available() or 0) // _SHARE
        if memory_is_short() or self.held + array.nbytes > self.most:
            return None
        kept = _read_only(array.copy())
        self._kept[next(self._numbers)] = kept
        return kept


ROOM = Room()


class Shelf(MutableMapping[str, Array]):
    """A dictionary of arrays; one of at least `LARGE` bytes is copied, into memory or, where that is short, a temporary
    file that is read whenever it is asked for. What is read of those is read-only."""

    def __init__(self, arrays: Mapping[str, Array] | Iterable[tuple[str, Array]] = ()) -> None:
        self._entries: dict[str, Array | Path] = {}
        self._folder: TemporaryDirectory[str] | None = None
        self._names = count()
        self._others: tuple[Shelf, ...] = ()
        self.update(arrays)

    def __getitem__(self, name: str) -> Array:
        entry = self._entries[name]
        return _read_only(np.load(entry, allow_pickle=False)) if isinstance(entry, Path) else entry

    def __setitem__(self, name: str, array: Array) -> None:
        if array.nbytes >= LARGE:
            kept = ROOM.take(array)
            self._entries[name] = self._written(array) if kept is None else kept
        else:
            self._entries[name] = array

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def select(self, names: Iterable[str]) -> "Shelf":
        """Some of it, in this order. Nothing is copied."""
        return self.renamed({name: name for name in names})

    def renamed(self, names: Mapping[str, str]) -> "Shelf":
        """Those that `names` has, in its order, each under the name that it has there. Nothing is copied."""
        part = Shelf()
        part._entries = {new: self._entries[name] for name, new in names.items()}
        part._others = (self,)  # whose files they are
        return part

    def joined(self, other: "Shelf") -> "Shelf":
        """Both, this one's arrays first. Nothing is copied."""
        whole = self.select(self)
        whole._entries |= other._entries
        whole._others += (other,)
        return whole

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> "Shelf":
        """These arrays as a shelf: themselves, if they are one."""
        return arrays if isinstance(arrays, Shelf) else cls(arrays)

    def _written(self, array: Array) -> Path:
        self._folder = self._folder or TemporaryDirectory(prefix="triptych-")
        path = Path(self._folder.name) / f"{next(self._names)}.npy"
        np.save(path, array, allow_pickle=False)
        return path


class Computed(Mapping[str, Array]):
    """Arrays that are each made when asked for, and kept by nobody: all of them can be a gigabyte."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Array]) -> None:
        self._names = dict.fromkeys(names)
        self._make = make

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def select(arrays: Mapping[str, Array], names: Iterable[str]) -> Mapping[str, Array]:
    """Some arrays in this order; those of a shelf stay where they are, and none is computed before it is asked for."""
    if isinstance(arrays, Computed):
        return Computed(names, arrays.__getitem__)
    return arrays.select(names) if isinstance(arrays, Shelf) else {name: arrays[name] for name in names}
