"""Surfaces of structures as files for other programs: STL, OBJ with colours, glTF (.glb). LPS, mm. Torch-free.

STL and OBJ say in their comment that they are LPS, as Slicer does and understands. A .glb holds LPS mm, too, under a
node that turns and scales them to what glTF demands: metres, y up (superior), z to the front (anterior).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

_COMMENT = "3D Slicer output. SPACE=LPS"
_TO_GLTF = (1e-3, 0, 0, 0, 0, 0, -1e-3, 0, 0, 1e-3, 0, 0, 0, 0, 0, 1)  # column by column: x = L, y = S, z = A, in m
_FLOAT, _UINT, _VERTICES, _INDICES = 5126, 5125, 34962, 34963  # glTF's numbers for types and buffers
_JSON_CHUNK, _BINARY_CHUNK = 0x4E4F534A, 0x004E4942


@dataclass(frozen=True)
class Surface:
    """A closed surface.

    Args:
        name: of the structure.
        color: red, green, blue, 0 to 255.
        points: (N, 3), LPS mm.
        triangles: (M, 3), indices of points, counter-clockwise seen from outside.
    """

    name: str
    color: Sequence[int]
    points: np.ndarray
    triangles: np.ndarray

    @property
    def volume_mm3(self) -> float:
        """What it encloses; negative when its triangles look inwards."""
        a, b, c = (self.points[self.triangles[:, i]].astype(np.float64) for i in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    def outwards(self) -> Surface:
        """The same with its triangles looking outwards, also after a mirroring transform."""
        return self if self.volume_mm3 >= 0 else replace(self, triangles=self.triangles[:, ::-1])

    def normals(self) -> np.ndarray:
        """(N, 3), of length 1: mean of the triangles around each point, larger ones count more."""
        a, b, c = (self.points[self.triangles[:, i]] for i in range(3))
        sums = np.zeros((len(self.points), 3))
        for corner in range(3):
            np.add.at(sums, self.triangles[:, corner], np.cross(b - a, c - a))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.where(lengths > 0, sums / np.maximum(lengths, 1e-30), (0.0, 0.0, 1.0))


def write_stl(folder: Path, surfaces: Sequence[Surface]) -> list[Path]:
    """One binary file per surface, named after it, in an existing folder. STL has neither names nor colours inside."""
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    paths = []
    for name, surface in zip(_own_names(surfaces, r"[^\w. ()-]+"), surfaces, strict=True):
        table = np.zeros(len(surface.triangles), record)
        table["corners"] = surface.points[surface.triangles]
        normals = np.cross(*(table["corners"][:, i] - table["corners"][:, 0] for i in (1, 2)))
        table["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
        header = _COMMENT.encode().ljust(80) + np.uint32(len(table)).astype("<u4").tobytes()
        paths.append(folder / f"{name}.stl")
        paths[-1].write_bytes(header + table.tobytes())
    return paths


def write_obj(path: Path, surfaces: Sequence[Surface]) -> list[Path]:
    """An object per surface, and their colours in a .mtl file beside; returns both."""
    lines, materials, first = [f"# {_COMMENT}", f"mtllib {path.with_suffix('.mtl').name}"], [], 1
    for name, surface in zip(_own_names(surfaces, r"\s+"), surfaces, strict=True):
        lines += [f"o {name}", f"usemtl {name}"]
        lines += ["v {:.6g} {:.6g} {:.6g}".format(*point) for point in surface.points.tolist()]
        lines += ["f {} {} {}".format(*corners) for corners in (surface.triangles + first).tolist()]
        color = " ".join(f"{channel / 255:.4f}" for channel in surface.color)
        materials += [f"newmtl {name}", f"Kd {color}", "Ka 0 0 0", "Ks 0 0 0", "d 1", "illum 1"]
        first += len(surface.points)
    texts = {path: lines, path.with_suffix(".mtl"): [f"# {_COMMENT}", *materials]}
    for file, text in texts.items():
        file.write_text("\n".join(text) + "\n", encoding="utf-8")
    return list(texts)


def write_glb(path: Path, surfaces: Sequence[Surface]) -> list[Path]:
    """One binary glTF 2.0 file with a named and coloured node per surface."""
    binary = _Binary()
    meshes, materials = [], []
    for index, surface in enumerate(surfaces):
        places = {
            "POSITION": binary.add(surface.points.astype("<f4"), _FLOAT, "VEC3", _VERTICES, has_bounds=True),
            "NORMAL": binary.add(surface.normals().astype("<f4"), _FLOAT, "VEC3", _VERTICES),
        }
        corners = binary.add(surface.triangles.astype("<u4").ravel(), _UINT, "SCALAR", _INDICES)
        primitive = {"attributes": places, "indices": corners, "material": index}
        meshes.append({"name": surface.name, "primitives": [primitive]})
        color = {"baseColorFactor": [*_linear(surface.color), 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
        materials.append({"name": surface.name, "pbrMetallicRoughness": color})
    children = [{"name": surface.name, "mesh": index} for index, surface in enumerate(surfaces)]
    root = {"name": "LPS, mm", "matrix": _TO_GLTF, "children": list(range(1, len(surfaces) + 1))}
    scene = {
        "asset": {"version": "2.0", "generator": "Slicer Mamba Segmentation"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [root, *children],
        "meshes": meshes,
        "materials": materials,
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.data)}],
    }
    text = json.dumps(scene, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 4)
    chunks = _chunk(_JSON_CHUNK, text) + _chunk(_BINARY_CHUNK, bytes(binary.data))
    path.write_bytes(b"glTF" + np.array([2, 12 + len(chunks)], "<u4").tobytes() + chunks)
    return [path]


class _Binary:
    """The numbers of a glTF file, and what it says of each piece of them."""

    def __init__(self):
        self.data, self.views, self.accessors = bytearray(), [], []

    def add(self, array: np.ndarray, number: int, shape: str, target: int, has_bounds: bool = False) -> int:
        """Append an array of 4-byte numbers; returns the index of its accessor."""
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes, "target": target}
        accessor = {"bufferView": len(self.views), "componentType": number, "count": len(array), "type": shape}
        if has_bounds:
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        self.data += array.tobytes()
        self.views.append(view)
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _chunk(kind: int, data: bytes) -> bytes:
    return np.array([len(data), kind], "<u4").tobytes() + data


def _linear(color: Sequence[int]) -> list[float]:
    """A colour as screens have it (sRGB) in the linear light that glTF wants."""
    parts = np.asarray(color, float) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4).tolist()


def _own_names(surfaces: Sequence[Surface], forbidden: str) -> list[str]:
    """A name of its own for each, without what must not be in it."""
    names: list[str] = []
    for surface in surfaces:
        plain = re.sub(forbidden, "_", surface.name.strip()).strip(". ") or "segment"
        taken = {name.casefold() for name in names}
        numbered = (f"{plain}_{number}" for number in range(2, len(surfaces) + 2))
        names.append(plain if plain.casefold() not in taken else next(n for n in numbered if n.casefold() not in taken))
    return names
