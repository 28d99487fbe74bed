"""People in 3D in a browser: one HTML file that opens from the disk and needs no network. Drawn by plotly.

What stands in it: people on a level ground, each picture's (or film's) own, which is at height 0 (left and right in
their colours; bodies where there are any), the camera with its picture, and points of the depth map where there is one.
Several pictures, or a video's frames, get a slider. A click on a joint tells whose it is, its name and where it is, in
metres. plotly and the figure are packed, and unpacked by the browser itself; a sketch stands there until plotly has
drawn, and what the first picture does not need comes last, and is read meanwhile.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import cv2
import numpy as np
from PIL import Image

from humanpose3d.camera import Camera, pixel_to_ray
from humanpose3d.skeletons import Skeleton
from humanpose3d.visualize.mesh import MESH_COLOUR
from humanpose3d.visualize.onlooker import Onlooker, sketch
from humanpose3d.visualize.panels import FOOT_M, SIDE_COLOURS, levelling

MOST_SCENES = 300  # in one file
PICTURE_PX = 96  # longer side of a picture
POINTS, POINTS_IN_ALL = 5000, 120_000  # of the depth maps: of one, and of all in a file
MOST_BODIES = 40  # whose surfaces are shown, of all in a file
COLOURS = 256  # of all pictures and points together
PLANE_SHARE = 0.25  # of the nearest person's distance: where the picture stands
TITLE_PX, SLIDER_PX = 45, 110  # of the page's height
GROUND = "#f1f3f6"
NOBODYS_GROUND_M = 1.5  # under the camera
FRAME_MS = 100  # of a frame while it plays
NOBODY = "no person found"
PLACE_STEP_M, POINT_STEP_M = 1 / 1024, 1 / 256  # of joints, and of depth: whole steps of these pack well
# plotly.js: its licence, and all that stands inside its wrapper for module loaders.
PLOTLY = re.compile(r"\s*(/\*.*?\*/).*?\(\) => \{\n(.*)\nreturn Plotly;\n\}\)\);?\s*", re.DOTALL)
ARRAYS = {"float32": "Float32Array", "uint32": "Uint32Array", "uint16": "Uint16Array", "uint8": "Uint8Array"}
ALIGNED = 4  # bytes: where an array may begin
HOVER = "%{text}<br>%{x:.2f} m right, %{y:.2f} m away, %{z:.2f} m up<extra></extra>"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<style>
html, body { margin: 0; height: 100%; overflow: hidden; font: 16px sans-serif; }
#plot { width: 100%; height: 100%; }
#sketch { position: absolute; top: TOP; height: calc(100% - TOP - BOTTOM); left: 50%; transform: translateX(-50%); }
#told { position: absolute; left: 14px; top: 46px; padding: 2px 6px; color: #2a3f5f; background: #ffffffd0; }
</style></head>
<body><div id="plot"></div>SKETCH<div id="told">HINT</div>
<script type="text/plain" id="library">LIBRARY</script>
<script type="text/plain" id="first">FIRST</script>
<script>
async function unpacked(id) {
  const packed = await fetch("data:application/gzip;base64," + document.getElementById(id).textContent);
  return new Response(packed.body.pipeThrough(new DecompressionStream("gzip")));
}
// The length of the JSON, the JSON, and the arrays that it names by kind, place and length.
async function figure(id) {
  const bytes = await (await unpacked(id)).arrayBuffer(), size = new Uint32Array(bytes, 0, 1)[0];
  const text = new TextDecoder().decode(new Uint8Array(bytes, 4, size));
  return JSON.parse(text, (_, value) => value && value.array
    ? new self[value.array](bytes, 4 + size + value.at, value.length) : value);
}
// Plotly's, without a reason, of a film that is stopped: nothing is wrong.
window.addEventListener("unhandledrejection", event => event.reason || event.preventDefault());
async function show() {
  const library = document.createElement("script");
  library.textContent = await (await unpacked("library")).text();
  document.head.append(library);
  const first = await figure("first");
  const plot = await Plotly.newPlot("plot", first.data, first.layout, {responsive: true, displaylogo: false});
  document.getElementById("sketch").remove();
  plot.on("plotly_click", event => {
    const point = event.points.find(each => each.data.text && each.data.text[each.pointNumber]);
    if (!point) return;
    const place = [point.x, point.y, point.z].map(metres => metres.toFixed(2));
    const told = `${point.data.text[point.pointNumber]}: ${place[0]} m right, ${place[1]} m away, ${place[2]} m up`;
    document.getElementById("told").textContent = told;  // no annotation: each makes plotly draw, and click, again
  });
  document.body.dataset.shownMs = performance.now();
  if (document.readyState == "loading")
    await new Promise(done => document.addEventListener("DOMContentLoaded", done));
  const rest = await figure("rest");
  if (rest.frames.length > 1) {
    await Plotly.addFrames(plot, rest.frames);
    await Plotly.relayout(plot, rest.layout);
  }
  document.body.dataset.isWhole = "yes";
}
show();
</script>
<script type="text/plain" id="rest">REST</script>
</body></html>
"""


@dataclass(eq=False)
class Scene:
    """What one picture shows."""

    name: str
    people_cam_m: Sequence[np.ndarray]  # float32 [J 3] each
    camera: Camera
    size_wh: tuple[int, int]
    picture: np.ndarray  # uint8 [h w 3], small
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))  # camera frame, metres
    colours: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    numbers: Sequence[str] = ()  # of the people; else their places in the list, from 1
    shot: str = ""  # scenes of one shot are levelled alike: the frames of a video
    bodies_cam_m: np.ndarray | None = None  # float32 [people V 3], the people's surfaces
    faces: np.ndarray | None = None  # int [F 3], of each


def make_scene(
    name: str,
    people_cam_m: Sequence[np.ndarray],
    camera: Camera,
    image: np.ndarray,
    depth_m: np.ndarray | None,
    *,
    numbers: Sequence[str] = (),
    shot: str = "",
    bodies_cam_m: np.ndarray | None = None,
    faces: np.ndarray | None = None,
) -> Scene:
    """A scene that keeps little of its picture. image: uint8 [H W 3]; depth_m: [h w] metres, 0 unknown, or None."""
    height, width = image.shape[:2]
    scale = PICTURE_PX / max(height, width)
    size = max(round(width * scale), 2), max(round(height * scale), 2)
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    scene = Scene(
        name, people_cam_m, camera, (width, height), picture, numbers=numbers, shot=shot or name,
        bodies_cam_m=bodies_cam_m, faces=faces,
    )  # fmt: skip
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
    if not scenes:
        raise ValueError("a viewer needs at least one picture")
    hint = "click a joint for its name and place" if any(len(each.people_cam_m) for each in scenes) else NOBODY
    traces = _Drawing(scenes, skeleton).traces()
    onlooker = Onlooker(*_extent(traces))
    first = {"data": traces[0], "layout": _layout(scenes, onlooker, title)}
    rest = {"frames": _frames(traces), "layout": {"sliders": [_slider(scenes)], "updatemenus": [_buttons()]}}
    parts = {
        "TITLE": escape(title), "HINT": hint, "TOP": f"{TITLE_PX}px", "BOTTOM": f"{_slider_px(scenes)}px",
        "SKETCH": sketch(onlooker, traces[0], GROUND), "LIBRARY": _packed(_library().encode()),
        "FIRST": _packed(_figure(first)), "REST": _packed(_figure(rest)),
    }  # fmt: skip
    return re.sub(r"\b(" + "|".join(parts) + r")\b", lambda found: parts[found[0]], PAGE)


def _slider_px(scenes: Sequence[Scene]) -> int:
    return SLIDER_PX if len(scenes) > 1 else 0


def _library() -> str:
    """plotly.js, out of its wrapper: inside a function a browser parses all of it once more before it runs."""
    from plotly.offline import get_plotlyjs

    whole = get_plotlyjs()
    parts = PLOTLY.fullmatch(whole)
    return "\n".join(parts.groups()) if parts else whole


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _figure(values: Any) -> bytes:
    """Plain values and arrays -> what `figure` in the page reads: arrays as they are pack better than their text."""
    from plotly.io.json import to_json_plotly

    arrays = bytearray()
    text = to_json_plotly(_named(values, arrays)).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(4, "little") + text + arrays


def _named(values: Any, arrays: bytearray) -> Any:
    """Arrays -> their names; what is in them is added to `arrays`."""
    if isinstance(values, dict):
        return {name: _named(value, arrays) for name, value in values.items()}
    if isinstance(values, list):
        return [_named(value, arrays) for value in values]
    if not isinstance(values, np.ndarray):
        return values
    at, content = len(arrays), np.ascontiguousarray(values).tobytes()
    arrays += content + bytes(-len(content) % ALIGNED)
    return {"array": ARRAYS[values.dtype.name], "at": at, "length": values.size}


def _frames(traces: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What changes from scene to scene, as plotly's frames."""
    same = [_same_in_all([of_scene[number] for of_scene in traces]) for number in range(len(traces[0]))]
    return [
        {
            "name": str(number),
            "traces": list(range(len(of_scene))),
            "data": [
                {name: value for name, value in trace.items() if name not in of_all}
                for trace, of_all in zip(of_scene, same, strict=True)
            ],
        }
        for number, of_scene in enumerate(traces)
    ]


def _layout(scenes: Sequence[Scene], onlooker: Onlooker, title: str) -> dict[str, Any]:
    low, high = onlooker.low_m, onlooker.high_m
    axes = {
        axis: {
            "title": {"text": f"{what} (m)"}, "range": [float(low[i]), float(high[i])], "showbackground": what == "up",
            "backgroundcolor": GROUND, "gridcolor": "#cdd2d7", "showspikes": False, "zeroline": False, "nticks": 8,
        }
        for i, (axis, what) in enumerate((("xaxis", "right"), ("yaxis", "away"), ("zaxis", "up")))
    }  # fmt: skip
    # The ground needs no number, and its own would lie upon another axis's.
    step_m = next((step for step in (0.5, 1.0, 2.0, 5.0) if high[2] / step < 6), 10.0)
    axes["zaxis"]["tickvals"] = np.arange(step_m, high[2], step_m).tolist()
    return {
        "title": {"text": title if len(scenes) > 1 else f"{title}: {scenes[0].name}", "x": 0.01, "xanchor": "left"},
        "font": {"size": 14, "family": "sans-serif"},
        "showlegend": True,
        "legend": {"x": 0.99, "xanchor": "right", "y": 0.99, "bgcolor": "rgba(255,255,255,0.7)"},
        "margin": {"l": 0, "r": 0, "t": TITLE_PX, "b": _slider_px(scenes)},
        "scene": {
            **axes,
            "aspectmode": "manual",
            "aspectratio": dict(zip("xyz", onlooker.size.tolist(), strict=True)),
            "camera": onlooker.camera(),
        },
    }


def _same_in_all(traces: Sequence[dict[str, Any]]) -> set[str]:
    """The attributes of a trace that are the same in every scene: its frames need not repeat them."""
    return {name for name, first in traces[0].items() if all(_is_same(trace[name], first) for trace in traces[1:])}


def _is_same(value: Any, first: Any) -> bool:
    if isinstance(first, np.ndarray):
        return value.shape == first.shape and np.array_equal(value, first, equal_nan=value.dtype.kind == "f")
    if isinstance(first, dict):
        return all(_is_same(value[name], each) for name, each in first.items())
    return value == first


def _extent(traces: Sequence[Sequence[dict[str, Any]]]) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) corner of everybody and the camera, with room around; the ground is at height 0."""
    shown = [trace for of_scene in traces for trace in of_scene if trace["name"] in (*SIDE_COLOURS, "camera")]
    every = np.concatenate([np.stack([trace[axis] for axis in "xyz"], axis=-1) for trace in shown])
    every = every[np.isfinite(every).all(axis=-1)]
    if not any(np.isfinite(trace["x"]).any() for trace in shown if trace["name"] != "camera"):
        every = np.concatenate([every, [[-1.0, 4.0, 0.0], [1.0, 5.0, 2.0]]])
    low, high = every.min(axis=0) - 0.4, every.max(axis=0) + 0.4
    low[2] = 0.0
    return low, high


class _Drawing:
    """Scenes -> plotly's traces as plain values, the same kinds in the same order for every scene."""

    def __init__(self, scenes: Sequence[Scene], skeleton: Skeleton) -> None:
        self.scenes, self.skeleton = scenes, skeleton
        self.people = max(len(scene.people_cam_m) for scene in scenes)
        self.chains = {side: _chains(skeleton, side) for side in ("left", "right", "centre")}
        shots: dict[str, list[np.ndarray]] = {}
        for scene in scenes:
            shots.setdefault(scene.shot, []).extend(scene.people_cam_m)
        self.level = {shot: levelling(people, skeleton) for shot, people in shots.items()}
        self.ground_m = {shot: self._ground(shot, people) for shot, people in shots.items()}
        self.plane_m = {
            shot: PLANE_SHARE * float(np.clip(min((np.nanmin(joints[:, 2]) for joints in people), default=4.0), 1, 12))
            for shot, people in shots.items()
        }
        self.palette = _palette([scene.picture for scene in scenes] + [scene.colours[None] for scene in scenes])
        self.points = min(POINTS, POINTS_IN_ALL // len(scenes))
        bodies = sum(0 if scene.bodies_cam_m is None else len(scene.bodies_cam_m) for scene in scenes)
        self.has_bodies = 0 < bodies <= MOST_BODIES

    def traces(self) -> list[list[dict[str, Any]]]:
        return [
            [*(self._limbs(scene, side) for side in self.chains), self._numbers(scene), self._camera(scene),
             self._picture(scene), self._points(scene), *([self._bodies(scene)] if self.has_bodies else [])]
            for scene in self.scenes
        ]  # fmt: skip

    def _ground(self, shot: str, people_cam_m: Sequence[np.ndarray]) -> float:
        """The height of a foot under the lowest joint, seen from the camera."""
        heights = [(np.asarray(joints, np.float64) @ self.level[shot].T)[:, 1] for joints in people_cam_m]
        lowest = np.nanmin(np.concatenate(heights)) if heights else np.nan
        return float(lowest - FOOT_M) if np.isfinite(lowest) else -NOBODYS_GROUND_M

    def _plotted(self, scene: Scene, points_cam_m: np.ndarray, step_m: float = PLACE_STEP_M) -> dict[str, np.ndarray]:
        """Camera frame [... 3] -> right and away of the camera, level, and up from the ground, in whole steps."""
        right, up, away = (np.asarray(points_cam_m, np.float64).reshape(-1, 3) @ self.level[scene.shot].T).T
        places = {"x": right, "y": away, "z": up - self.ground_m[scene.shot]}
        return {axis: (step_m * (values / step_m).round()).astype(np.float32) for axis, values in places.items()}

    def _everybody(self, scene: Scene) -> np.ndarray:
        """float [people J 3]; NaN for those who are in other scenes alone."""
        joints = np.full((max(self.people, 1), len(self.skeleton), 3), np.nan)
        for number, person in enumerate(scene.people_cam_m):
            joints[number] = person
        return joints

    def _named(self, scene: Scene) -> list[str]:
        names = list(scene.numbers) or [str(number + 1) for number in range(len(scene.people_cam_m))]
        return names + [""] * (max(self.people, 1) - len(names))

    def _limbs(self, scene: Scene, side: str) -> dict[str, Any]:
        chain = self.chains[side]
        gap = np.array([joint < 0 for joint in chain])
        joints = np.where(gap[:, None], np.nan, self._everybody(scene)[:, chain])
        text = [
            "" if joint < 0 or not name else f"person {name}, {self.skeleton.joints[joint].replace('_', ' ')}"
            for name in self._named(scene)
            for joint in chain
        ]
        red, green, blue = SIDE_COLOURS[side]
        return {
            "type": "scatter3d", "mode": "lines+markers", "name": side, **self._plotted(scene, joints), "text": text,
            "hovertemplate": HOVER, "line": {"color": f"rgb({red},{green},{blue})", "width": 8},
            "marker": {"size": 2.5, "color": "#222222"}, "connectgaps": False,
        }  # fmt: skip

    def _numbers(self, scene: Scene) -> dict[str, Any]:
        """Above the heads, where there are several."""
        joints = self._everybody(scene)
        top = np.array([
            person[np.nanargmin(person[:, 1])] - [0.0, 0.2, 0.0] if np.isfinite(person).any() else person[0]
            for person in joints
        ])  # fmt: skip
        return {
            "type": "scatter3d", "mode": "text", "name": "numbers", **self._plotted(scene, top),
            "text": self._named(scene) if self.people > 1 else [""] * len(top), "hoverinfo": "skip",
            "textfont": {"size": 16, "color": "#282828"}, "showlegend": self.people > 1,
        }  # fmt: skip

    def _plane(self, scene: Scene, shares: np.ndarray) -> np.ndarray:
        """Shares [N 2] of the picture's width and height, 0 to 1 -> [N 3] on the plane before the camera."""
        rays = pixel_to_ray(shares * np.array(scene.size_wh) - 0.5, scene.camera)
        return self.plane_m[scene.shot] * np.concatenate([rays, np.ones((len(rays), 1))], axis=-1)

    def _camera(self, scene: Scene) -> dict[str, Any]:
        corners = self._plane(scene, np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64))
        lines = [point for corner in corners for point in (np.zeros(3), corner, np.full(3, np.nan))]
        return {
            "type": "scatter3d", "mode": "lines", "name": "camera", "hoverinfo": "skip",
            **self._plotted(scene, np.array([*lines, *corners, corners[0]])), "line": {"color": "#555555", "width": 3},
        }  # fmt: skip

    def _picture(self, scene: Scene) -> dict[str, Any]:
        """A mesh with two triangles of one colour for each pixel: plotly's surfaces have no pictures."""
        height, width = scene.picture.shape[:2]
        columns, rows = np.meshgrid(np.linspace(0, 1, width + 1), np.linspace(0, 1, height + 1))
        number = np.arange((height + 1) * (width + 1), dtype=np.uint16).reshape(height + 1, width + 1)
        a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]))
        colour = self._indices(scene.picture).ravel()
        return {
            "type": "mesh3d", "name": "picture", "hoverinfo": "skip", "showlegend": True, "showscale": False,
            **self._plotted(scene, self._plane(scene, np.stack([columns.ravel(), rows.ravel()], axis=-1))),
            # One half of the pixels after the other: the second half of the colours costs nothing, packed.
            "i": np.concatenate([a, a]), "j": np.concatenate([b, c]), "k": np.concatenate([c, d]),
            "intensity": np.concatenate([colour, colour]), "intensitymode": "cell", **self._scale(),
            "lighting": {"ambient": 1.0, "diffuse": 0.0, "specular": 0.0, "fresnel": 0.0}, "flatshading": True,
        }  # fmt: skip

    def _bodies(self, scene: Scene) -> dict[str, Any]:
        """Half transparent, so that joints can be seen in them, and clicked."""
        bodies = np.zeros((0, 3, 3), np.float32) if scene.bodies_cam_m is None else scene.bodies_cam_m
        faces = np.zeros((0, 3), np.int64) if scene.faces is None else scene.faces
        starts = np.arange(len(bodies)) * bodies.shape[1]
        corners = (faces + starts[:, None, None]).reshape(-1, 3).astype(np.uint32)
        return {
            "type": "mesh3d", "name": "bodies", "hoverinfo": "skip", "showlegend": True, **self._plotted(scene, bodies),
            "i": corners[:, 0], "j": corners[:, 1], "k": corners[:, 2], "color": f"rgb{MESH_COLOUR}", "opacity": 0.55,
            "lighting": {"ambient": 0.5, "diffuse": 0.7, "specular": 0.1},
        }  # fmt: skip

    def _points(self, scene: Scene) -> dict[str, Any]:
        some = slice(None, None, max(-(-len(scene.points) // self.points), 1))
        colour = {"color": self._indices(scene.colours[None, some])[0], **self._scale(), "showscale": False}
        return {
            "type": "scatter3d", "mode": "markers", "name": "depth", "hoverinfo": "skip",
            **self._plotted(scene, scene.points[some], POINT_STEP_M), "marker": {"size": 2, **colour},
            "showlegend": any(len(each.points) for each in self.scenes),
        }  # fmt: skip

    def _scale(self) -> dict[str, Any]:
        colours = np.array(self.palette.getpalette()).reshape(-1, 3)[:COLOURS].tolist()
        colours = colours if len(colours) > 1 else 2 * colours  # plotly's scales have two ends
        last = len(colours) - 1
        stops = [[number / last, f"rgb({red},{green},{blue})"] for number, (red, green, blue) in enumerate(colours)]
        return {"colorscale": stops, "cmin": 0, "cmax": last}

    def _indices(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [h w 3] -> uint8 [h w], numbers of the palette's colours."""
        if not pixels.size:
            return np.zeros(pixels.shape[:2], np.uint8)
        return np.asarray(Image.fromarray(pixels).quantize(palette=self.palette, dither=Image.Dither.NONE))


def _palette(pictures: Sequence[np.ndarray]) -> Image.Image:
    """One set of colours that suits all."""
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
    some = pixels[:: max(len(pixels) // 200_000, 1)]
    return Image.fromarray(np.ascontiguousarray(some[None])).quantize(COLOURS, method=Image.Quantize.MEDIANCUT)


def _chains(skeleton: Skeleton, side: str) -> list[int]:
    """Joints in the order of a pen that draws this side's bones; -1 where it is lifted."""
    chain: list[int] = []
    for parent, child in skeleton.bones:
        if skeleton.sides[child] == side:
            chain += [child] if chain and chain[-1] == parent else [-1, parent, child]
    return [*chain, -1]


def _slider(scenes: Sequence[Scene]) -> dict[str, Any]:
    now = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    return {
        "currentvalue": {"prefix": "", "xanchor": "center", "font": {"color": "#2a3f5f"}},
        # Names under the ticks would be cut off; the one that counts stands above.
        "font": {"color": "rgba(0, 0, 0, 0)"},
        "pad": {"t": 10, "b": 10},
        "x": 0.02,
        "len": 0.96,
        "steps": [
            {"method": "animate", "label": scene.name, "args": [[str(number)], now]}
            for number, scene in enumerate(scenes)
        ],
    }


def _buttons() -> dict[str, Any]:
    run = {"frame": {"duration": FRAME_MS, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    stop = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}}
    return {
        "type": "buttons", "direction": "left", "x": 0.01, "xanchor": "left", "y": 0.0, "yanchor": "top",
        "pad": {"t": 8},
        "showactive": False,
        "buttons": [
            {"label": "play", "method": "animate", "args": [None, run]},
            {"label": "stop", "method": "animate", "args": [[None], stop]},
        ],
    }  # fmt: skip
