"""Body meshes drawn on the CPU: over the picture they were found in, from the side, and both beside the picture.

A z-buffer in NumPy, so that no GPU, display or OpenGL is needed. Every function returns a new uint8 [h w 3]
RGB picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel, warp_camera
from humanpose3d.visualize.panels import CAMERA_UP, PAPER, TILE_PX, Colour, Scene, View, framed, grid, level_with

MESH_COLOUR: Colour = (86, 180, 233)  # Okabe and Ito's sky blue: apart from skin and ground for every colour vision
TRUTH_COLOUR: Colour = (230, 159, 0)  # their orange, for a body as it should be
OPACITY = 0.85  # of a mesh over its picture
SIDE = View(yaw_deg=90.0, pitch_deg=8.0)
NEAREST_M = 0.05  # faces that reach nearer to the lens are left out
AMBIENT = 0.4  # share of the light that comes from everywhere
LIGHT = np.array([-0.45, -0.55, -0.7])  # from the body to the lamp: left, up, towards the viewer
CANDIDATES = 4_000_000  # pixels that faces may cover, looked at in one go: what bounds the memory


def draw_mesh(
    image: np.ndarray,
    vertices_cam_m: np.ndarray,
    faces: np.ndarray,
    camera: Camera,
    *,
    colour: Colour = MESH_COLOUR,
    opacity: float = OPACITY,
) -> np.ndarray:
    """The picture with the bodies over it as its camera sees them, the nearer before the farther.

    image: uint8 [H W 3]. vertices_cam_m: [V 3], or [people V 3], camera frame. faces: int [F 3], counter-clockwise from
    outside. What is behind the camera or off the picture is left out.
    """
    bodies, faces = _bodies(vertices_cam_m, faces)
    points_m = bodies.reshape(-1, 3)
    depth_m = np.where(points_m[:, 2] > NEAREST_M, points_m[:, 2], np.nan)
    shown, covered = _rasterise(
        camera_to_pixel(points_m, camera), depth_m, _shaded(points_m, faces, colour), faces, image.shape[1::-1]
    )
    return _over(image, shown, covered, opacity)


def draw_mesh_from(
    vertices_cam_m: np.ndarray,
    faces: np.ndarray,
    size_wh: tuple[int, int] = (TILE_PX, TILE_PX),
    *,
    view: View = SIDE,
    up: np.ndarray = CAMERA_UP,
    colour: Colour = MESH_COLOUR,
) -> np.ndarray:
    """The bodies on a ground grid with ticks in metres, looked at from the side, or from any `view`; shapes as above.

    up: [3], camera frame, as `panels.upwards` finds it from joints. The ground lies under the lowest vertex.
    """
    picture = np.full((size_wh[1], size_wh[0], 3), PAPER, np.uint8)
    bodies, faces = _bodies(vertices_cam_m, faces)
    points = bodies.reshape(-1, 3) @ level_with(up).T
    scene = Scene.around([points], view, size_wh, foot_m=0.0)
    scene.draw_ground(picture)
    if not len(points):
        return picture
    seen = scene.seen(points)
    shades = _shaded(seen * [1.0, -1.0, 1.0], faces, colour)
    away_m = seen[:, 2] + scene.distance
    shown, covered = _rasterise(scene.project(points), away_m, shades, faces, size_wh)
    return _over(picture, shown, covered, 1.0)


def mesh_panel(
    image: np.ndarray,
    vertices_cam_m: np.ndarray,
    faces: np.ndarray,
    camera: Camera,
    *,
    title: str = "",
    note: str = "",
    up: np.ndarray = CAMERA_UP,
    colour: Colour = MESH_COLOUR,
    tile_px: int = TILE_PX,
) -> np.ndarray:
    """The picture, the bodies over it, and the bodies from the side, beside each other; shapes and `up` as there."""
    scale = tile_px / max(image.shape[:2])
    tile_wh = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    small = cv2.resize(image, tile_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    across, down = tile_wh[0] / image.shape[1], tile_wh[1] / image.shape[0]
    resized = warp_camera(camera, np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]]))
    tiles = [
        framed(small, title or "input", f"{image.shape[1]} x {image.shape[0]} px"),
        framed(draw_mesh(small, vertices_cam_m, faces, resized, colour=colour), "mesh", note),
        framed(draw_mesh_from(vertices_cam_m, faces, tile_wh, up=up, colour=colour), "from the side", "metres"),
    ]
    return grid([tiles])


def _bodies(vertices_m: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [people V 3], faces of all of them [people * F 3])."""
    vertices_m = np.asarray(vertices_m, np.float64)
    bodies = vertices_m.reshape(-1, *vertices_m.shape[-2:])
    starts = np.arange(len(bodies)) * bodies.shape[1]
    return bodies, (np.asarray(faces, np.int64) + starts[:, None, None]).reshape(-1, 3)


def _shaded(points: np.ndarray, faces: np.ndarray, colour: Colour) -> np.ndarray:
    """float32 [V 3], 0 to 255: each vertex's colour under the lamp. points: [V 3], right, down, away."""
    corners = points[faces]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(points)
    for corner in range(3):  # faces weigh by their area, as their cross products are long
        for axis in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], areas[:, axis], len(points))
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    lit = np.clip(normals @ (LIGHT / np.linalg.norm(LIGHT)), 0.0, 1.0)
    return ((AMBIENT + (1.0 - AMBIENT) * lit)[:, None] * np.array(colour)).astype(np.float32)


def _rasterise(
    points_px: np.ndarray, depth_m: np.ndarray, colours: np.ndarray, faces: np.ndarray, size_wh: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [h w 3], bool [h w]): colours of the nearest faces, and where there are any.

    points_px [V 2], depth_m [V] (NaN: not to be seen), colours [V 3]. What is linear on the picture is 1 / depth.
    """
    width, height = size_wh
    shown, nearness = np.zeros((height * width, 3), np.float32), np.zeros(height * width, np.float32)
    inverse = (1.0 / depth_m).astype(np.float32)
    faces = faces[np.isfinite(points_px[faces]).all((1, 2)) & np.isfinite(inverse[faces]).all(1)]
    for some in _in_portions(points_px, faces, size_wh):
        face, pixel, shares = _candidates(points_px[some], size_wh)
        near = (shares * inverse[some][face]).sum(-1)
        front = np.argsort(near, kind="stable")  # the nearest last: it overwrites what lies behind it
        front = front[near[front] > nearness[pixel[front]]]
        nearest = np.full(height * width, -1, np.int64)
        nearest[pixel[front]] = front
        won = nearest[nearest >= 0]
        nearness[pixel[won]] = near[won]
        # Colours are mixed as the surface is, not as the picture is: by shares over depth.
        mixed = shares[won, :, None] * (colours[some][face[won]] * inverse[some][face[won]][..., None])
        shown[pixel[won]] = mixed.sum(1) / near[won, None]
    return shown.reshape(height, width, 3), (nearness > 0).reshape(height, width)


def _in_portions(points_px: np.ndarray, faces: np.ndarray, size_wh: tuple[int, int]) -> Iterator[np.ndarray]:
    """Those faces that reach into the picture, so many at once that their boxes hold about CANDIDATES pixels."""
    low, high = _boxes(points_px[faces], size_wh)
    pixels = np.clip(high - low + 1, 0, None).prod(-1)
    faces, pixels = faces[pixels > 0], pixels[pixels > 0]
    portion = np.cumsum(pixels) // CANDIDATES
    yield from np.split(faces, np.flatnonzero(np.diff(portion)) + 1)


def _boxes(corners_px: np.ndarray, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """int64 [F 2] each: first and last pixel, x and y, of the picture's that a face [3 2] may cover."""
    last = np.array(size_wh) - 1
    # Clipped as floats first: what lies far off the picture is beyond an int.
    low = np.ceil(np.clip(corners_px.min(1), 0, last + 1.0)).astype(np.int64)
    high = np.floor(np.clip(corners_px.max(1), -1.0, last)).astype(np.int64)
    return low, high


def _candidates(corners_px: np.ndarray, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pixel that lies in a face: (the face [n], the pixel's number [n], shares of its corners float32 [n 3])."""
    low, high = _boxes(corners_px, size_wh)
    extent = high - low + 1
    count = extent.prod(-1)
    face = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(place, extent[face, 0])
    x, y = column + low[face, 0], row + low[face, 1]
    first, second, third = np.moveaxis(corners_px, 1, 0)
    a, b = second - first, third - first
    twice_area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):  # faces seen edge on cover nothing: NaN is not inside
        across = np.stack([b[:, 1], -a[:, 1]], -1) / twice_area[:, None]
        along = np.stack([-b[:, 0], a[:, 0]], -1) / twice_area[:, None]
        from_first = np.stack([x, y], -1) - first[face]
        later = from_first[:, :1] * across[face] + from_first[:, 1:] * along[face]
        shares = np.concatenate([1.0 - later.sum(-1, keepdims=True), later], -1).astype(np.float32)
        inside = (shares >= -1e-6).all(-1)
    return face[inside], (y * size_wh[0] + x)[inside], shares[inside]


def _over(image: np.ndarray, shown: np.ndarray, covered: np.ndarray, opacity: float) -> np.ndarray:
    """The picture under what is shown, whose outer edges are softened."""
    edge = cv2.GaussianBlur(covered.astype(np.float32), (3, 3), 0.6)
    alpha = (opacity * np.minimum(edge, covered))[..., None]
    return np.rint(image * (1.0 - alpha) + shown * alpha).astype(np.uint8)
