"""Raw corpora on disk -> LabelledFrames: one module a corpus, one line each in SOURCES."""

from types import ModuleType

from humanpose3d.sources import human36m

SOURCES: dict[str, ModuleType] = {"human36m": human36m}


def get_source(name: str) -> ModuleType:
    """The reader of that corpus. ValueError lists the known ones."""
    if name not in SOURCES:
        raise ValueError(f"unknown dataset '{name}'; known: {', '.join(sorted(SOURCES))}")
    return SOURCES[name]
