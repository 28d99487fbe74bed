"""A body mesh as a file for Blender, MeshLab and browsers: .obj or .glb, by trimesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from humanpose3d.files import write_whole
from humanpose3d.visualize.mesh import MESH_COLOUR
from humanpose3d.visualize.panels import Colour

FORMATS = (".obj", ".glb")
TO_FILE = np.array([1.0, -1.0, -1.0])  # the camera frame turned about its x: such files have y up and z towards us


def write_mesh(path: Path, vertices_cam_m: np.ndarray, faces: np.ndarray, *, colour: Colour = MESH_COLOUR) -> None:
    """One body as `path`, in the format of its suffix; vertices and faces stay in their order.

    vertices_cam_m: [V 3], camera frame; in the file metres, x right, y up, z towards the camera. faces: int [F 3].
    ValueError: another suffix, or trimesh is not installed.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: meshes are written as {' or '.join(FORMATS)}")
    try:
        import trimesh
    except ImportError:
        told = "meshes need trimesh, which is not here: pip install 'humanpose3d[body]'"
        raise ValueError(f"{path}: {told}") from None
    points = np.asarray(vertices_cam_m, np.float64) * TO_FILE
    mesh = trimesh.Trimesh(points, np.asarray(faces), process=False)  # as they are: nothing merged or sorted
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=[*colour, 255], metallicFactor=0.0, roughnessFactor=0.8
    )
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    if path.suffix == ".glb":
        content = trimesh.exchange.gltf.export_glb(trimesh.Scene(mesh), include_normals=True)
    else:
        # Without the material, which would be a second file: one that is not there stops some programs.
        wanted = {"include_normals": True, "include_color": False, "include_texture": False}
        content = trimesh.exchange.obj.export_obj(mesh, **wanted).encode()
    write_whole(path, content)
