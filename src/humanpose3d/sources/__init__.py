"""Raw corpora on disk -> LabelledFrames: one module a corpus, one line each in SOURCES.

A reader has NAME, FOLDERS (images, annotations: where they lie below data/<name>), SUBJECTS_HELP, CUES ("require" or
"optional": is a frame without a matching detection kept? "own": frames bring their keypoints and have no pictures) and
`read_frames`. One that has settings of its own names them in SETTINGS: keywords of its `read_frames`, fields of the
chunker's that are None where they are not given.
"""

from types import ModuleType

from humanpose3d.sources import freihand, human36m, mocap, mpi_inf_3dhp, mpii, threedpw

SOURCES: dict[str, ModuleType] = {
    reader.NAME: reader for reader in (human36m, mpi_inf_3dhp, mpii, freihand, threedpw, mocap)
}


def get_source(name: str) -> ModuleType:
    """The reader of that corpus. ValueError lists the known ones."""
    if name not in SOURCES:
        raise ValueError(f"unknown dataset '{name}'; known: {', '.join(sorted(SOURCES))}")
    return SOURCES[name]
