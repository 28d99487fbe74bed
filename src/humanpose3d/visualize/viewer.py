"""People in 3D in a browser: one HTML file that opens from the disk and needs no network. Drawn by plotly.

What stands in it: people (left and right in their colours), the camera with its picture, and points of the depth map
where there is one. Several pictures, or a video's frames, get a slider. A click on a joint tells whose it is, its name
and where it is, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from humanpose3d.camera import Camera, pixel_to_ray
from humanpose3d.skeletons import Skeleton
from humanpose3d.visualize.panels import SIDE_COLOURS

MOST_SCENES = 200  # in one file
MOST_PICTURES = 40  # of them with picture and depth; the others show people alone
PICTURE_PX, POINTS = 112, 5000
PLANE_SHARE = 0.35  # of the nearest person's distance: where the picture stands
CLICKED = """
var plot = document.getElementById('{plot_id}');
plot.on('plotly_click', function (event) {
  var point = event.points.find(function (each) { return each.customdata; });
  if (point) { Plotly.relayout(plot, {'annotations[0].text': point.customdata}); }
});
"""


@dataclass(eq=False)
class Scene:
    """What one picture shows."""

    name: str
    people_cam_m: Sequence[np.ndarray]  # float32 [J 3] each
    camera: Camera
    size_wh: tuple[int, int]
    picture: np.ndarray | None = None  # uint8 [h w 3], small
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))  # camera frame, metres
    colours: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))


def make_scene(
    name: str,
    people_cam_m: Sequence[np.ndarray],
    camera: Camera,
    image: np.ndarray,
    depth_m: np.ndarray | None,
    *,
    with_picture: bool = True,
) -> Scene:
    """A scene that keeps little of its picture. image: uint8 [H W 3]; depth_m: [h w] metres, 0 unknown, or None."""
    height, width = image.shape[:2]
    scene = Scene(name, people_cam_m, camera, (width, height))
    if not with_picture:
        return scene
    scale = PICTURE_PX / max(height, width)
    size = max(round(width * scale), 2), max(round(height * scale), 2)
    scene.picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if depth_m is not None and (depth_m > 0).any():
        scene.points, scene.colours = _cloud(camera, image, depth_m)
    return scene


def _cloud(camera: Camera, image: np.ndarray, depth_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(depth_m > 0)
    step = max(len(rows) // POINTS, 1)
    rows, columns = rows[::step], columns[::step]
    z = depth_m[rows, columns].astype(np.float64)
    scale = np.array(image.shape[1::-1]) / np.array(depth_m.shape[1::-1])
    pixels = (np.stack([columns, rows], axis=-1) + 0.5) * scale - 0.5
    rays = pixel_to_ray(pixels, camera)
    x, y = np.clip(pixels.round().astype(int), 0, np.array(image.shape[1::-1]) - 1).T
    return np.concatenate([rays * z[:, None], z[:, None]], axis=-1).astype(np.float32), image[y, x]


def viewer_html(scenes: Sequence[Scene], skeleton: Skeleton, title: str = "humanpose3d") -> str:
    """The whole file. ValueError without a scene."""
    import plotly.graph_objects as go

    if not scenes:
        raise ValueError("a viewer needs at least one picture")
    frames = [go.Frame(data=_traces(scene, skeleton), name=str(number)) for number, scene in enumerate(scenes)]
    low, high = _extent(scenes)
    figure = go.Figure(data=frames[0].data, frames=frames if len(frames) > 1 else None)
    axes = {
        axis: {"title": f"{what}, m", "range": [float(low[i]), float(high[i])], "backgroundcolor": "white"}
        for i, (axis, what) in enumerate((("xaxis", "right"), ("yaxis", "away"), ("zaxis", "up")))
    }
    spread = (high - low) / (high - low).max()
    figure.update_layout(
        title={"text": title if len(scenes) > 1 else f"{title}: {scenes[0].name}"},
        template="plotly_white",
        showlegend=True,
        margin={"l": 0, "r": 0, "t": 40, "b": 0},
        scene={
            **axes,
            "aspectmode": "manual",
            "aspectratio": dict(zip("xyz", (2.0 * spread).tolist(), strict=True)),
            "camera": {"eye": {"x": 0.55, "y": -1.5, "z": 0.55}},
        },
        annotations=[{
            "text": "click a joint", "x": 0.01, "y": 0.99, "xref": "paper", "yref": "paper", "showarrow": False,
            "align": "left", "font": {"size": 15}, "bgcolor": "rgba(255,255,255,0.8)",
        }],
    )  # fmt: skip
    if len(scenes) > 1:
        figure.update_layout(sliders=[_slider(scenes)], updatemenus=[_buttons()])
    return figure.to_html(
        include_plotlyjs=True, full_html=True, post_script=CLICKED, auto_play=False, default_height="97vh"
    )


def _extent(scenes: Sequence[Scene]) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) corner of everybody and the camera, with room around."""
    people = [joints for scene in scenes for joints in scene.people_cam_m]
    points = [np.zeros((1, 3)), *(_plotted(joints) for joints in people)]
    if not people:
        points += [_plotted(scene.points) for scene in scenes if len(scene.points)] or [np.array([[0.0, 4.0, 0.0]])]
    every = np.concatenate(points)
    low, high = np.nanmin(every, axis=0), np.nanmax(every, axis=0)
    room = np.maximum(0.1 * (high - low), 0.5)
    return low - room, high + room


def _plotted(points_cam_m: np.ndarray) -> np.ndarray:
    """Camera frame (right, down, away) -> right, away, up."""
    points = np.asarray(points_cam_m, np.float64).reshape(-1, 3)
    return np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=-1)


def _traces(scene: Scene, skeleton: Skeleton) -> list[Any]:
    """The same kinds in the same order for every scene: a slider puts one scene's in the place of another's."""
    import plotly.graph_objects as go

    people = [_plotted(joints) for joints in scene.people_cam_m]
    traces = [_bones(people, skeleton, side) for side in ("left", "right", "centre")]
    told = [
        f"person {number}: {name}<br>{x:.2f} m right, {y:.2f} m away, {z:.2f} m up of the camera"
        for number, joints in enumerate(people, start=1)
        for name, (x, y, z) in zip(skeleton.joints, joints, strict=True)
    ]
    joints = np.concatenate(people) if people else np.full((1, 3), np.nan)
    traces.append(go.Scatter3d(
        x=joints[:, 0], y=joints[:, 1], z=joints[:, 2], mode="markers", name="joints", customdata=told or [""],
        hovertemplate="%{customdata}<extra></extra>", marker={"size": 3, "color": "#222222"},
    ))  # fmt: skip
    plane_m = PLANE_SHARE * min((float(np.nanmin(joints[:, 1])) for joints in people), default=3.0)
    corners = _plane(scene, max(plane_m, 0.1), np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64))
    lines = [point for corner in corners for point in (np.zeros(3), corner, np.full(3, np.nan))]
    outline = np.array([*lines, *corners, corners[0]])
    traces.append(go.Scatter3d(
        x=outline[:, 0], y=outline[:, 1], z=outline[:, 2], mode="lines", name="camera", hoverinfo="skip",
        line={"color": "#777777", "width": 2},
    ))  # fmt: skip
    traces += [_picture(scene, max(plane_m, 0.1)), _points(scene)]
    return traces


def _bones(people: Sequence[np.ndarray], skeleton: Skeleton, side: str) -> Any:
    import plotly.graph_objects as go

    lines = [np.full((1, 3), np.nan)]
    for joints in people:
        for parent, child in skeleton.bones:
            if skeleton.sides[child] == side:
                lines.append(np.array([joints[parent], joints[child], np.full(3, np.nan)]))
    x, y, z = np.concatenate(lines).T
    red, green, blue = SIDE_COLOURS.get(side, (70, 70, 70))
    return go.Scatter3d(
        x=x, y=y, z=z, mode="lines", name=side, hoverinfo="skip",
        line={"color": f"rgb({red},{green},{blue})", "width": 8},
    )  # fmt: skip


def _plane(scene: Scene, distance_m: float, shares: np.ndarray) -> np.ndarray:
    """Shares [N 2] of the picture's width and height, 0 to 1 -> [N 3] on the plane so far before the camera."""
    pixels = shares * np.array(scene.size_wh) - 0.5
    rays = pixel_to_ray(pixels, scene.camera)
    return _plotted(distance_m * np.concatenate([rays, np.ones((len(rays), 1))], axis=-1))


def _picture(scene: Scene, distance_m: float) -> Any:
    """A mesh with a corner for each pixel: plotly's surfaces have no pictures."""
    import plotly.graph_objects as go

    if scene.picture is None:
        return go.Mesh3d(x=[], y=[], z=[], i=[], j=[], k=[], name="picture")
    height, width = scene.picture.shape[:2]
    columns, rows = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    points = _plane(scene, distance_m, np.stack([columns.ravel(), rows.ravel()], axis=-1)).astype(np.float32)
    number = np.arange(height * width).reshape(height, width)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]))
    red, green, blue = scene.picture.reshape(-1, 3).T
    return go.Mesh3d(
        x=points[:, 0], y=points[:, 1], z=points[:, 2], i=np.r_[a, a], j=np.r_[b, c], k=np.r_[c, d], name="picture",
        vertexcolor=[f"#{r:02x}{g:02x}{v:02x}" for r, g, v in zip(red, green, blue, strict=True)], hoverinfo="skip",
        lighting={"ambient": 1.0, "diffuse": 0.0, "specular": 0.0}, showlegend=True,
    )  # fmt: skip


def _points(scene: Scene) -> Any:
    import plotly.graph_objects as go

    x, y, z = _plotted(scene.points).astype(np.float32).T
    return go.Scatter3d(
        x=x, y=y, z=z, mode="markers", name="depth", hoverinfo="skip",
        marker={"size": 2, "color": [f"rgb({r},{g},{b})" for r, g, b in scene.colours]},
    )  # fmt: skip


def _slider(scenes: Sequence[Scene]) -> dict[str, Any]:
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    return {
        "currentvalue": {"prefix": ""},
        "pad": {"t": 10, "b": 10},
        "x": 0.14,
        "len": 0.82,
        "steps": [
            {"method": "animate", "label": scene.name, "args": [[str(number)], now]}
            for number, scene in enumerate(scenes)
        ],
    }


def _buttons() -> dict[str, Any]:
    run = {"frame": {"duration": 100, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    stop = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}}
    return {
        "type": "buttons", "direction": "left", "x": 0.01, "y": 0.0, "yanchor": "top", "pad": {"t": 20},
        "showactive": False,
        "buttons": [
            {"label": "play", "method": "animate", "args": [None, run]},
            {"label": "stop", "method": "animate", "args": [[None], stop]},
        ],
    }  # fmt: skip
